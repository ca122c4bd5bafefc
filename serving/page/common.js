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
    const dialog = element("dialog", "", { id: "key-dialog" });
    const form = element("form", "", { method: "dialog" });
    const given = element("input", "", { id: "key", type: "password", autocomplete: "off", required: true });
    dialog.setAttribute("aria-labelledby", "key-title");
    form.append(
      element("h2", "API key", { id: "key-title" }),
      element("label", "This server asks for its key", { htmlFor: "key" }), given, element("button", "Use it"),
    );
    dialog.append(form);
    dialog.addEventListener("close", () => {
      key = given.value;
      sessionStorage.setItem("api-key", key);
      asking = null;
      dialog.remove();
      resolve();
    }, { once: true });
    document.body.append(dialog);
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
