'use strict';

const { Stage } = require('./stage.cjs');
const kit = require('./testing/kit.cjs');

module.exports = { Stage, ...kit };
