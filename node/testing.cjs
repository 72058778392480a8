'use strict';

const { Stage } = require('./stage.cjs');

module.exports = { Stage };
