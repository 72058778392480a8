'use strict';

// What docs/conformance/node.md has from the kit itself: the rules, and what it finds in the stores of others. As a program it
// writes them there.

const fs = require('node:fs');
const path = require('node:path');
const { rules } = require('counterfoil/testing');
const { root } = require('../redis.cjs');

const PAGE = path.join(root, 'docs', 'conformance', 'node.md');
const HEAD = ['| what | passed | failed | not applicable |', '| --- | --- | --- | --- |'];

function row(name, report) {
  const count = (outcome) => report.filter((result) => result.outcome === outcome).length;
  const failed = report
    .filter(({ outcome }) => outcome === 'failed')
    .map(({ rule }) => `\`${rule}\``)
    .join(', ');
  return `| ${name} | ${count('passed')} | ${failed || 'none'} | ${count('not applicable')} |`;
}

const table = (findings) => [...HEAD, ...findings.map(({ name, report }) => row(name, report))].join('\n');

const sentence = ({ sentence: text, asked }) => `${text.replaceAll('|', '\\|')}${asked ? ' (`also`)' : ''}`;
const rulesOf = (kind) =>
  [
    `### ${kind}`,
    '',
    '| rule | what must hold | from |',
    '| --- | --- | --- |',
    ...rules[kind].map((rule) => `| \`${rule.id}\` | ${sentence(rule)} | ${rule.source} |`),
  ].join('\n');
const allRules = () => Object.keys(rules).map(rulesOf).join('\n\n');

const between = (name) => new RegExp(`(<!-- ${name} -->\n)([^]*?)(<!-- /${name} -->)`);
const partOf = (text, name) => text.match(between(name))[2].trim();
const withPart = (text, name, part) => text.replace(between(name), (_, before, old, after) => `${before}\n${part}\n\n${after}`);
const read = () => fs.readFileSync(PAGE, 'utf8');

module.exports = { PAGE, read, partOf, table, allRules };

if (require.main === module) {
  const { findings } = require('./third_parties.cjs');
  findings().then((found) => {
    fs.writeFileSync(PAGE, withPart(withPart(read(), 'table', table(found)), 'rules', allRules()));
    process.exit(); // clients of others may still have timers
  });
}
