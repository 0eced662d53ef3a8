/** The test kit's clock, for the tests of what is below it. */
export { createFakeClock, epoch, type FakeClock } from '#lib/testing/clock.js';
