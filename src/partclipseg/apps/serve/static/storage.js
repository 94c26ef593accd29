// What the browser keeps for the next visit. People may forbid that, and browsers then refuse by an error.

/**
 * Return the text that was kept under a name, empty for none.
 * @param {string} name
 */
export function kept(name) {
  try {
    return localStorage.getItem(name) ?? "";
  } catch {
    return "";
  }
}

/**
 * Keep a text under a name, where that is allowed.
 * @param {string} name
 * @param {string} text
 */
export function keep(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch {
    // It holds until the page is left.
  }
}
