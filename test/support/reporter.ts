import { writeFileSync } from 'node:fs';
import Mocha from 'mocha';

/**
 * Mocha's spec reporter, and one last line that a machine reads: `N passed, N failed, N skipped`. The same line goes to
 * the file that TUNWARD_TEST_SUMMARY names, since whatever else is printed cannot be mistaken for it there. What failed
 * goes to the file of that name with `.failures`, for whoever sees no more than the end of a long log.
 */
export default class SummaryReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options);
    const failed: string[] = [];
    runner.on(Mocha.Runner.constants.EVENT_TEST_FAIL, (test: Mocha.Test, error: Error) => {
      failed.push(`FAILED ${test.titlePath().join(' › ')}\n${test.file ?? ''}\n${error.stack ?? error.message}\n`);
    });
    runner.once(Mocha.Runner.constants.EVENT_RUN_END, () => {
      const { passes, failures, pending } = this.stats;
      const line = `${passes} passed, ${failures} failed, ${pending} skipped\n`;
      process.stdout.write(line);
      const file = process.env.TUNWARD_TEST_SUMMARY;
      if (!file) return;
      writeFileSync(file, line);
      writeFileSync(`${file}.failures`, failed.join('\n'));
    });
  }
}
