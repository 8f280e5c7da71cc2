#!/usr/bin/env node
// The cron language twice: ours, and croner's, which was written by others from the same idea.
//
// Goal: 20,000 random expressions and instants give the same next five runs. Method: random fields
// that both documentations describe alike, in zones with and without clock changes; ours from
// build/*/tests/cron_next_lines, croner's in this process.
//
// Where the documented rules differ nothing is compared, and each such pair is counted and told:
//  - in a day around a clock change, an expression whose minute or hour has a step without '*', or
//    whose seconds have '*' or a step: ours runs at fixed times when neither minute nor hour begins
//    with '*', croner's when there is no wildcard or step in seconds, minutes and hours;
//  - a '*' with a step in one of the day fields while the other is restricted: ours takes a field
//    that begins with '*' as unrestricted, as Vixie's cron does; croner only a lone '*'.
// The generator makes no ?, H, L, W, # and +, which one of the two does not have or takes otherwise,
// and no range that ends with the name of its field's first value: 0-sun is Sunday to us, and the
// whole week to croner, which takes a sun at the end for 7.
// Usage: test_cron.js CHRONOS_BINARY [SEED]
import { spawnSync } from "node:child_process";
import path from "node:path";
import { Cron } from "croner";

const WANTED = 20000;
const RUNS = 5;
const ZONES = ["UTC", "Asia/Tokyo", "Asia/Kolkata", "Europe/Berlin", "America/New_York",
  "America/St_Johns", "Australia/Lord_Howe", "Pacific/Chatham"];
const MONTHS = ["jan", "Feb", "MAR", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "DEC"];
const DAYS = ["sun", "Mon", "TUE", "wed", "thu", "fri", "sat"];

const seed = Number(process.argv[3] ?? process.env.CHRONOS_TEST_SEED ?? Date.now() % 2 ** 31);
let state = seed >>> 0;

// Mulberry32: small, and the same everywhere.
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const below = (n) => Math.floor(random() * n);

function value(v, names, first) {
  return names && below(3) === 0 && v - first < names.length ? names[v - first] : String(v);
}

function item(min, max, names, first) {
  const a = min + below(max - min + 1);
  const b = a + below(max - a + 1);
  const end = b === min ? String(b) : value(b, names, first);
  switch (below(4)) {
    case 0: return value(a, names, first) + "-" + end;
    case 1: return value(a, names, first) + "-" + end + "/" + (1 + below(Math.max(1, b - a)));
    default: return value(a, names, first);
  }
}

// star: how many times of ten the field is '*'.
function field(min, max, star, names = null, first = 0) {
  if (below(10) < star) return "*";
  if (below(5) === 0) return "*/" + (1 + below(Math.floor((max - min) / 2)));
  return Array.from({ length: 1 + below(3) }, () => item(min, max, names, first)).join(",");
}

function expression() {
  const fields = [field(0, 59, 3), field(0, 23, 3), field(1, 31, 6), field(1, 12, 6, MONTHS, 1),
    field(0, 6, 6, DAYS, 0)];
  const kind = below(4);
  if (kind > 1) fields.unshift(field(0, 59, 1));
  if (kind > 2) fields.push(below(2) ? "*" : `${2000 + below(20)}-${2040 + below(60)}`);
  return fields;
}

// Days have lengths: an expression whose dates never come is refused by ours, and never ends there.
const isCalm = (f) => f === "*" || !f.startsWith("*");

function make() {
  const fields = expression();
  const at = fields.length === 5 ? 0 : 1;
  const [minute, hour, day, , weekday] = fields.slice(at, at + 5);
  const seconds = at === 1 ? fields[0] : "0";
  const loose = (f) => f.includes("*") || f.includes("/");
  const ours = !minute.startsWith("*") && !hour.startsWith("*");
  const theirs = !loose(seconds) && !loose(minute) && !loose(hour);
  return {
    text: fields.join(" "),
    zone: ZONES[below(ZONES.length)],
    from: 946684800 + below(1000000000), // 2000 to 2031
    daysDiffer: (!isCalm(day) && weekday !== "*") || (!isCalm(weekday) && day !== "*"),
    changesDiffer: ours !== theirs,
  };
}

function ask(cases) {
  const binary = path.join(path.dirname(path.resolve(process.argv[2])), "tests", "cron_next_lines");
  const input = cases.map((c) => `${c.text}\t${c.zone}\t${c.from}\t${RUNS}\n`).join("");
  const r = spawnSync(binary, { input, encoding: "utf8", maxBuffer: 2 ** 28 });
  if (r.error || r.status !== 0)
    throw new Error(`${binary}: ${r.error ?? r.stderr} (status ${r.status})`);
  return r.stdout.split("\n").slice(0, -1);
}

function croner(c) {
  const cron = new Cron(c.text, { timezone: c.zone, fixedTimeRule: "no-wildcard", paused: true });
  return cron.nextRuns(RUNS, new Date(c.from * 1000)).map((d) => d.getTime() / 1000).join(" ");
}

function main() {
  const cases = [];
  const aside = { "days differ": 0, "clock change, rules differ": 0, "no such date": 0 };
  let compared = 0, nearChange = 0, failed = 0;

  while (cases.length < WANTED * 1.5) {
    const c = make();
    if (c.daysDiffer) aside["days differ"]++;
    else cases.push(c);
  }
  const answers = ask(cases);
  if (answers.length !== cases.length)
    throw new Error(`${answers.length} answers to ${cases.length} lines`);
  for (let i = 0; i < cases.length && compared < WANTED; i++) {
    const c = cases[i];
    const [ours, change] = answers[i].split("\t");
    if (ours.startsWith("error:")) {
      // Only dates that never come: then croner has no run either.
      const none = ours.includes("no date matches") && croner({ ...c, from: 0 }) === "";
      if (none) aside["no such date"]++;
      else failed++, console.log(`FAILED  '${c.text}': ${ours}`);
      continue;
    }
    if (change === "1" && c.changesDiffer) {
      aside["clock change, rules differ"]++;
      continue;
    }
    compared++;
    if (change === "1") nearChange++;
    const theirs = croner(c);
    if (ours === theirs) continue;
    failed++;
    if (failed <= 20)
      console.log(`FAILED  '${c.text}' ${c.zone} after ${c.from}: ours ${ours}, croner ${theirs}`);
  }
  console.log(`seed ${seed}: ${compared} compared, ${nearChange} of them around a clock change; ` +
    `set aside: ${Object.entries(aside).map(([k, n]) => `${k} ${n}`).join(", ")}`);
  if (compared < WANTED) {
    console.log(`FAILED  only ${compared} could be compared`);
    failed++;
  }
  console.log(`${compared - Math.min(failed, compared)} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

main();
