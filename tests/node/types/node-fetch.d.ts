// The client's types name it, and its package does not bring it.
declare module 'node-fetch';
