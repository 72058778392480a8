import testing from './testing.cjs';

export const {
  Stage, check, explain, rules, testBackend, testExpressStore, testCurveballStore, testFluidAuthStore, testMiroStorage, testHooks,
} = testing;
