import testing from './testing.cjs';

export const { Stage } = testing;
