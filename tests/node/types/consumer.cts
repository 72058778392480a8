// Compiled by types.test.cjs with tsc --strict: what an application may write, and what the types must refuse.
import counterfoil = require('counterfoil');
import { Stage } from 'counterfoil/testing';
import { CounterfoilStore } from 'counterfoil/express-session';
import session = require('express-session');
import express = require('express');

const { open, Backend, Storage, SecondaryStorage, AccountsStorage, SessionStorage, CounterfoilError } = counterfoil;

async function stores(): Promise<void> {
  const store: counterfoil.Store = open('memory:sessions', { prefix: 'p:', ttl: 60, timeout: 1.5, maxEntries: 10, maxBytes: 1000 });
  const text: string | undefined = await store.get('a');
  const bytes: Buffer | undefined = await store.getBuffer('a');
  const stored: boolean = await store.set('a', 'b', { ttl: 1, ifAbsent: true });
  await store.set('a', new Uint8Array([1]), { expiresAt: new Date(), keepTtl: false, ifEqual: Buffer.from('x'), ifPresent: false });
  const number: number = await store.incr('n', 2, { ttl: 5 });
  const many: Map<string, string | undefined> = await store.getMany(new Set(['a']));
  for await (const key of store.scan('p')) key.toUpperCase();
  for await (const { sealed, unreadable } of store.reseal('p')) (sealed + unreadable).toFixed();
  for await (const { sealed, unreadable } of new AccountsStorage(store).reseal()) (sealed + unreadable).toFixed();
  open('memory:', { keys: [[1, new Uint8Array(32)]], plainUntil: new Date() });
  open('memory:', { keys: [[1, new Uint8Array(32)]], plainUntil: '2030-01-31T00:00:00Z' });
  // @ts-expect-error a number says no zone, and seconds or milliseconds
  open('memory:', { plainUntil: 1893456000 });
  const removed: number = (await store.clear('p', { force: true })) + (await store.count());
  const { operations, entries, latencyUs }: counterfoil.Stats = await store.stats();
  const figures: number = operations + (entries ?? 0) + (latencyUs?.['64'] ?? 0);
  store.on('close', () => {}).once('close', () => {});
  store.on('connect', (text) => text.toUpperCase()).on('disconnect', (error) => error.code).on('error', (error) => error.outcome);
  store.once('warning', (text: string) => {});
  const receipt: string | undefined = new CounterfoilError('x', 'TIMEOUT', 'unknown').receipt;
  await store.pop('a', { receipt });
  await store.incr('a', 1, { receipt, ttl: 1 });
  await store.set('a', 'b', { ifAbsent: true, receipt });
  open('rediss://localhost', { user: 'u', password: 'p', db: 1, name: 'n', connectTimeout: 1, silence: 1, maxPending: 1, maxPendingBytes: 65536,
    receipts: false, tlsCa: 'a', tlsCert: 'b', tlsKey: 'c', tlsServerName: 'd' });
  const { commits, reads, grouped, waits, swept }: counterfoil.Stats = await open('sqlite:a.db', { synchronous: 'normal', singleProcess: true, remote: false, maxPending: 5 }).stats();
  await store[Symbol.asyncDispose]();
  void [commits, reads, grouped, waits, swept];
  void [text, bytes, stored, number, many, removed, figures, await store.pop('a'), await store.popBuffer('a'), await store.touch('a', 1), await store.delete('a')];

  // @ts-expect-error a key is text
  store.get(5);
  // @ts-expect-error a value is text or bytes
  store.set('a', 5);
  // @ts-expect-error a ttl is a number
  store.set('a', 'b', { ttl: '5' });
  // @ts-expect-error an instant is a Date
  store.set('a', 'b', { expiresAt: Date.now() });
  // @ts-expect-error there is no such option
  store.set('a', 'b', { if_absent: true });
  // @ts-expect-error a miss is undefined, and must be thought of
  (await store.get('a')).length;
  // @ts-expect-error a get has no receipt
  store.get('a', { receipt });
  // @ts-expect-error a certificate is given by the path of its file
  open('rediss://localhost', { tlsCa: Buffer.from('x') });
  // @ts-expect-error full or normal
  open('sqlite:a.db', { synchronous: 'off' });
  // @ts-expect-error a switch is a boolean
  open('sqlite:a.db', { singleProcess: 'on' });
  // @ts-expect-error touch needs a ttl
  store.touch('a');
  // @ts-expect-error stores are made by open
  new counterfoil.Store();
  // @ts-expect-error a backend has all three methods
  open({ get: () => 'x', set() {} });
  // @ts-expect-error options of a URL are none of a backend
  open({ get: () => 'x', set() {}, delete() {} }, { maxEntries: 1 });
  // @ts-expect-error a get gives no number
  open({ get: () => 5, set() {}, delete() {} });
}

class Mine extends Backend {
  readonly keepsTtl = true;
  private entries = new Map<string, string>();
  get(key: string): string | undefined { return this.entries.get(key); }
  set(key: string, value: string, ttl?: number | typeof Backend.KEEP): void { if (ttl !== Backend.KEEP) this.entries.set(key, value); }
  delete(key: string): boolean { return this.entries.delete(key); }
  async pop(key: string): Promise<string | undefined> { return this.entries.get(key); }
  scan(prefix: string, cursor: number | undefined, limit: number) { return { keys: [prefix, String(limit)], cursor: (cursor ?? 0) + 1 }; }
  close(): void {}
}
const mine: counterfoil.BackendMethods = new Mine();
const map = new Map<string, string>();
const plain = open({ get: (key) => map.get(key), set: (key, value: string) => map.set(key, value), delete: async (key) => map.delete(key), singleProcess: true }, { stage: new Stage() });

interface State { userId: string; accessToken: string }
async function interfaces(): Promise<void> {
  const storage = new Storage<State>(open(mine));
  await storage.set(1, { userId: 'a', accessToken: 'b' });
  await storage.set(1n, undefined);
  const state: State | undefined = await storage.get('1');
  // @ts-expect-error not a State
  await storage.set(1, { userId: 5 });
  const secondary = new SecondaryStorage(plain, { ttl: 60 });
  await new SecondaryStorage(plain, 60).set('a', 'b', -1);
  const code: string | undefined = await secondary.pop('a');
  // @ts-expect-error a store is needed
  new SecondaryStorage();
  void [state, code];
}

function errors(error: unknown): string {
  if (error instanceof CounterfoilError) {
    const code: counterfoil.ErrorCode = error.code;
    const outcome: 'applied' | 'not_applied' | 'unknown' = error.outcome;
    // @ts-expect-error no such code
    if (error.code === 'NOSUCH') return '';
    return code + outcome + error.message;
  }
  return new CounterfoilError('x', 'BUSY').name;
}

declare module 'express-session' {
  interface SessionData { views?: number; userId?: number }
}

async function adapter(): Promise<void> {
  const store = new CounterfoilStore({ url: 'memory:', prefix: 's:', ttl: (data) => data.views ?? 60, disableTouch: true, serializer: JSON });
  const app = express();
  app.use(session({ store, secret: 'x', resave: false, saveUninitialized: false }));
  const base: session.Store = store;
  const found: session.SessionData | null = await store.get('a');
  store.get('a', (error, one) => { void [error, one?.views]; });
  store.all((error, all) => { void [error, all?.[0]?.id]; });
  const ids: string[] = await store.ids();
  await store.set('a', { cookie: { originalMaxAge: null } });
  store.destroy('a');
  const length: number = await store.length();
  new CounterfoilStore({ store: plain });
  new CounterfoilStore({ backend: mine, ttl: 5, stage: new Stage(), timeout: 1 });
  new CounterfoilStore({ saveEnded: 'error', saveChanged: 'error' });
  store.set('a', found!, (error) => { if (error instanceof CounterfoilError && (error.code === 'ENDED' || error.code === 'CHANGED')) void error.outcome; });
  new CounterfoilStore({ absoluteTimeout: 43200, touchAfter: 60, disableTTL: false });
  // @ts-expect-error seconds
  new CounterfoilStore({ absoluteTimeout: '12h' });
  // @ts-expect-error seconds
  new CounterfoilStore({ touchAfter: new Date() });
  const users = new CounterfoilStore({ userOf: (one) => one.userId, maxSessionsPerUser: 5, whenFull: 'refuse' });
  new CounterfoilStore({ userOf: (one) => (one.views ? String(one.views) : null), whenFull: 'oldestOut' });
  app.get('/', async (request) => {
    await users.beginLogin(request, 7);
    const list: import('counterfoil/express-session').UserSession[] = await users.sessionsOf('7', { current: request.sessionID });
    const dates: Date[] = list.flatMap((one) => [one.created, one.lastSeen, one.expires]);
    const count: number = await users.endAllOf(7, { except: request.sessionID });
    const ended: boolean = list[0] !== undefined && !list[0].current && (await users.end(list[0].handle, { userId: 7 }));
    void [dates, count, ended, await users.endAllOf('7'), await users.end('x')];
  });
  // @ts-expect-error a user is text or a number
  new CounterfoilStore({ userOf: (one) => one.cookie });
  // @ts-expect-error at once
  new CounterfoilStore({ userOf: async (one) => one.userId });
  // @ts-expect-error oldestOut or refuse
  new CounterfoilStore({ userOf: () => 'u', whenFull: 'oldest' });
  // @ts-expect-error by its name
  users.endAllOf(7, 'the session id');
  // @ts-expect-error ignore, error or create
  new CounterfoilStore({ saveEnded: 'drop' });
  // @ts-expect-error overwrite or error
  new CounterfoilStore({ saveChanged: true });
  // @ts-expect-error no such option
  new CounterfoilStore({ client: plain });
  // @ts-expect-error a session has a cookie
  await store.set('a', { views: 1 });
  void [base, found, ids, length];
}

async function records(): Promise<void> {
  const store = open('memory:', { keys: [[1, Buffer.alloc(32)]] });
  const accounts: counterfoil.AccountsStorage = new AccountsStorage(store, { maxSocialAccounts: 5, timeout: 1 });
  const user: counterfoil.User = await accounts.createUser({ email: 'a@b.c', userInfo: { any: ['thing'] }, hashedPassword: null });
  const found: counterfoil.User | undefined = await accounts.findUserById(7);
  const email: string | null | undefined = found?.email;
  const usable: boolean = user.hasUsablePassword;
  const login = { provider: 'p', providerUserId: 'x', accessToken: 't', accessTokenExpiresAt: new Date(), user: { email: 'a@b.c' } };
  const { socialAccount, created }: counterfoil.FoundOrCreated = await accounts.findOrCreateBySocialAccount(login);
  const list: counterfoil.SocialAccount[] = await accounts.listSocialAccounts({ userId: user.id });
  const gone: boolean = (await accounts.deleteUser(user.id)) && (await accounts.deleteSocialAccount(5n));
  await accounts.updateSocialAccount(socialAccount.id, { scope: null, refreshToken: undefined });
  const mine: counterfoil.AccountsHooks = {
    findUserByEmail: async (emailKey) => ({ id: emailKey.length, userInfo: [1] }),
    deleteUser() {},
    updateUser: (id, changes) => (changes.emailKey ? { id } : undefined),
  };
  await new AccountsStorage(mine, { keys: [[1, Buffer.alloc(32)]], stage: new Stage() }).close();
  const sessions = new SessionStorage(store, { maxSessions: 5, whenFull: 'refuse', retention: 60 });
  const at = new Date();
  const session: counterfoil.Session = await sessions.create({ tokenHash: 'h', userId: user.id, createdAt: at, updatedAt: at, expiresAt: at, epoch: await sessions.epoch(user.id) });
  const { records, nextCursor } = await sessions.listForUser(user.id, { now: at, status: 'active', orderBy: 'createdAtAsc', limit: 5, cursor: undefined });
  await sessions.listForUser(user.id, { cursor: nextCursor });
  const status: counterfoil.SessionStatus | undefined = records[0]?.status;
  const count: number = await sessions.revokeAllForUser(user.id, { revokedAt: at, exceptSessionId: session.id });
  const still: counterfoil.Session | undefined = await sessions.refresh(session.id, { updatedAt: at, expiresAt: at });
  await accounts.createUser({}).catch((error) => { if (error instanceof CounterfoilError && error.code === 'EXISTS') void error.existing?.id; });
  void [email, usable, created, list, gone, status, count, still, await sessions.revoke(session.id, { revokedAt: at }), await sessions.get({ tokenHash: 'h' })];

  // @ts-expect-error an e-mail is text
  accounts.createUser({ email: 5 });
  // @ts-expect-error an instant is a Date
  sessions.revoke('x', { revokedAt: Date.now() });
  // @ts-expect-error no such field
  accounts.createUser({ emailKey: 'x' });
  // @ts-expect-error whose it is cannot change
  accounts.updateSocialAccount('x', { userId: 'y' });
  // @ts-expect-error a session ends
  sessions.create({ tokenHash: 'h', userId: 'u', createdAt: at, updatedAt: at });
  // @ts-expect-error no such order
  sessions.listForUser('u', { orderBy: 'updated_at' });
  // @ts-expect-error hooks give users with ids
  new AccountsStorage({ findUserById: () => ({ email: 'x' }) });
  // @ts-expect-error sessions need a store
  new SessionStorage(mine);
  // @ts-expect-error it is read only
  user.id = 'x';
}

const stage = new Stage();
stage.advance(5);
const instant: Date = stage.now();
const flags: boolean = stage.failed;
// @ts-expect-error it is read only
stage.blocks = 5;
void [stores, interfaces, records, errors, adapter, instant, flags];
