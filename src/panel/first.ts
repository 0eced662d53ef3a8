// Runs before anything is painted, as a plain script: a page that is to be dark must not flash.
try {
  const theme = localStorage.getItem('tunward.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing for us: the system decides.
}
