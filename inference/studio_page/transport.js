// What the page asks of scripts/studio.py. A folder of scripts/export_page.py has another file in this one's place.

// Answers with a Response. Errors have a status where the server has answered.
export async function post(name, body = {}) {
  const content = body instanceof Blob ? body : JSON.stringify(body);
  const response = await fetch(`api/${name}`, { method: "POST", body: content }).catch(() => {
    throw new Error("the server does not answer; is scripts/studio.py still running?");
  });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: `the server failed (${response.status})` }));
  throw Object.assign(new Error(error), { status: response.status });
}

// The page is left: its tab is closed, or shows another page.
export function close(tab) {
  navigator.sendBeacon("api/close", JSON.stringify({ tab }));
}
