'use strict';
/* A client that is not ours: @grpc/grpc-js with @grpc/proto-loader against a running cluster.
 *
 * Goal: everything a stranger needs is in the .proto files, which are loaded at run time.
 * Usage: node test_client.js HOST:PORT...     (or CHRONOS_ADDRESSES="HOST:PORT HOST:PORT")
 * The cluster must have at least one worker, for example `chronos dev`.
 * Prints one "ok" line per check; exits 1 at the first failure. */
const assert = require('node:assert');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const PROTO_DIR = path.resolve(__dirname, '../../../proto');
const TIMEOUT_MS = 30000;

function load(file) {
  const definition = loader.loadSync(file, {
    includeDirs: [PROTO_DIR], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true,
  });
  return grpc.loadPackageDefinition(definition);
}

const { chronos } = load('chronos/v1/job_service.proto');
const cluster = load('chronos/v1/cluster_service.proto').chronos;
const health = load('grpc/health/v1/health.proto').grpc;

const deadline = () => ({ deadline: Date.now() + TIMEOUT_MS });

function unary(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, deadline(), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function refused(promise, code, text) {
  try {
    await promise;
  } catch (error) {
    assert.strictEqual(error.code, code, error.message);
    assert.ok(error.details.includes(text), `'${text}' is not in '${error.details}'`);
    return;
  }
  assert.fail('the call was accepted');
}

const TERMINAL = ['JOB_STATE_COMPLETED', 'JOB_STATE_FAILED', 'JOB_STATE_CANCELLED'];

async function ended(client, jobId) {
  const until = Date.now() + TIMEOUT_MS;
  while (Date.now() < until) {
    const { job } = await unary(client, 'GetJob', { job_id: jobId });
    if (TERMINAL.includes(job.state)) return job;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`job ${jobId} did not end`);
}

async function submit(nodes) {
  const request = {
    spec: { command: { argv: ['/bin/echo', 'hello from js'] }, env: { A: '1' }, name: 'js echo' },
    idempotency_key: `js-${process.pid}-${Date.now()}`,
  };
  const first = await unary(nodes[0], 'SubmitJob', request);
  const again = await unary(nodes[nodes.length - 1], 'SubmitJob', request);
  assert.strictEqual(again.job_id, first.job_id);
  assert.strictEqual(again.existing, true);
  const job = await ended(nodes[nodes.length - 1], first.job_id);
  assert.strictEqual(job.state, 'JOB_STATE_COMPLETED');
  assert.strictEqual(job.output_tail.toString(), 'hello from js\n');
  assert.strictEqual(job.spec.queue, 'default');
  assert.strictEqual(job.created_index, first.index);
}

async function errors(nodes) {
  await refused(unary(nodes[0], 'SubmitJob', { spec: { shell: 'true', env: { CHRONOS_X: '1' } } }),
    grpc.status.INVALID_ARGUMENT, 'spec.env["CHRONOS_X"]');
  await refused(unary(nodes[0], 'GetJob', { job_id: 'jczzzzzzzzzzzz' }),
    grpc.status.NOT_FOUND, 'job');
}

function watchUntilEnd(client, request, jobIds, onStart) {
  return new Promise((resolve, reject) => {
    const stream = client.WatchJobs(request, deadline());
    const events = [];
    const open = new Set();
    let started = false;
    stream.on('data', (message) => {
      if (!started) {
        started = true;
        onStart().then((ids) => {
          ids.forEach((id) => open.add(id));
          events.forEach((e) => TERMINAL.includes(e.to) && open.delete(e.job_id));
          if (open.size === 0) stream.cancel();
        }, reject);
      }
      for (const event of message.events) {
        events.push(event);
        if (TERMINAL.includes(event.to) && open.delete(event.job_id) && open.size === 0) {
          stream.cancel();
        }
      }
    });
    stream.on('error', (error) => {
      if (error.code !== grpc.status.CANCELLED) reject(error);
      else resolve(events);
    });
    stream.on('end', () => resolve(events));
  });
}

async function watch(nodes) {
  let ids = [];
  const events = await watchUntilEnd(nodes[nodes.length - 1], {}, [], async () => {
    const jobs = Array.from({ length: 20 }, () => ({ spec: { noop: {} } }));
    const answer = await unary(nodes[0], 'SubmitJobs', { jobs });
    ids = answer.results.map((r) => r.job_id);
    return ids;
  });
  for (const id of ids) {
    const states = events.filter((e) => e.job_id === id).map((e) => e.to);
    assert.deepStrictEqual(states,
      ['JOB_STATE_PENDING', 'JOB_STATE_RUNNING', 'JOB_STATE_COMPLETED']);
  }
  const indices = events.map((e) => e.index);
  assert.deepStrictEqual(indices, [...indices].sort((a, b) => a - b));
}

async function list(nodes) {
  const queue = `js-${Date.now()}`;
  const jobs = Array.from({ length: 11 }, (_, i) => ({ spec: { noop: {}, queue, name: `n${i}` } }));
  const { results } = await unary(nodes[0], 'SubmitJobs', { jobs });
  const seen = [];
  let token = '';
  do {
    const page = await unary(nodes[nodes.length - 1], 'ListJobs',
      { page_size: 4, page_token: token, queue, oldest_first: true });
    page.jobs.forEach((job) => seen.push(job.id));
    token = page.next_page_token;
  } while (token);
  assert.deepStrictEqual(seen, results.map((r) => r.job_id));
}

async function status(nodes, addresses) {
  const client = new cluster.v1.ClusterService(addresses[0], grpc.credentials.createInsecure());
  const answer = await unary(client, 'GetClusterStatus', {});
  assert.ok(answer.leader_id > 0);
  const checker = new health.health.v1.Health(addresses[0], grpc.credentials.createInsecure());
  const state = await unary(checker, 'Check', { service: 'chronos.v1.JobService' });
  assert.strictEqual(state.status, 'SERVING');
  client.close();
  checker.close();
}

async function main() {
  const given = process.argv.slice(2);
  const addresses = given.length ? given : (process.env.CHRONOS_ADDRESSES || '').split(/\s+/).filter(Boolean);
  if (addresses.length === 0) {
    console.error('usage: node test_client.js HOST:PORT...');
    process.exit(2);
  }
  const nodes = addresses.map((a) => new chronos.v1.JobService(a, grpc.credentials.createInsecure()));
  for (const test of [status, submit, errors, list, watch]) {
    const started = Date.now();
    try {
      await test(nodes, addresses);
    } catch (error) {
      console.log(`not ok ${test.name}: ${error.stack}`);
      process.exit(1);
    }
    console.log(`ok ${test.name} (${Date.now() - started} ms)`);
  }
  nodes.forEach((n) => n.close());
}

main();
