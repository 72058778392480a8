import adapter from './express-session.cjs';

export const { CounterfoilStore } = adapter;
