// What both pages need: requests with the API key, which is asked for once, and elements.

export const $ = (id) => document.getElementById(id);
let key = sessionStorage.getItem("api-key") || "";

export async function call(path, options = {}) {
  const headers = { ...(options.headers || {}), ...(key ? { "X-API-Key": key } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    await askKey();
    return call(path, options);
  }
  return answer;
}

let asking = null;
function askKey() {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    dialog.addEventListener("close", () => {
      key = $("key").value;
      sessionStorage.setItem("api-key", key);
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

export function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  Object.assign(made, attributes);
  return made;
}
