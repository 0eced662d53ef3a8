// What a page of another origin can try against an API at `base`, in a browser in which somebody has logged in there.
// `attack(base)` resolves to what came of each: `refused`, `sent` where a page is not told, or what it was able to read.

const act = '/v1/tunnels/victim/restart';
const order = '{"action":"restart","all":true}';

globalThis.attack = async (base) => {
  const tries = {
    'fetch POST': () => send(`${base}${act}`, { method: 'POST', mode: 'no-cors' }),
    'fetch POST of text': () => send(`${base}/v1/operations`, { method: 'POST', mode: 'no-cors', body: order }),
    'fetch POST of a form': () =>
      send(`${base}${act}`, { method: 'POST', mode: 'no-cors', body: new URLSearchParams({ force: 'true' }) }),
    'fetch POST of JSON': () =>
      read(`${base}/v1/operations`, { method: 'POST', body: order, headers: { 'content-type': 'application/json' } }),
    'fetch POST with a token': () =>
      read(`${base}${act}`, { method: 'POST', headers: { authorization: 'Bearer guess' } }),
    'fetch DELETE': () => read(`${base}/v1/tunnels/stopped`, { method: 'DELETE' }),
    'fetch PUT': () => read(`${base}/v1/tunnels/stopped`, { method: 'PUT', body: '{}' }),
    'fetch GET': () => read(`${base}/v1/tunnels`, {}),
    'fetch GET of the log': () => read(`${base}/v1/tunnels/victim/logs`, {}),
    'fetch GET of an action': () => send(`${base}${act}`, { mode: 'no-cors' }),
    'fetch, kept alive': () => send(`${base}${act}`, { method: 'POST', mode: 'no-cors', keepalive: true }),
    'fetch, logging out': () => send(`${base}/v1/session`, { method: 'DELETE', mode: 'no-cors' }),
    'fetch, logging in': () =>
      send(`${base}/v1/session`, { method: 'POST', mode: 'no-cors', body: '{"token":"guess"}' }),
    XMLHttpRequest: () => byRequest(`${base}${act}`),
    beacon: () => (navigator.sendBeacon(`${base}${act}`) ? 'sent' : 'refused'),
    'beacon of text': () => (navigator.sendBeacon(`${base}/v1/operations`, order) ? 'sent' : 'refused'),
    'beacon of JSON': () => {
      const body = new Blob([order], { type: 'application/json' });
      return navigator.sendBeacon(`${base}/v1/operations`, body) ? 'sent' : 'refused';
    },
    image: () => byElement('img', { src: `${base}${act}` }),
    script: () => byElement('script', { src: `${base}/v1/tunnels` }),
    'script of the configuration': () => byElement('script', { src: `${base}/v1/config` }),
    style: () => byElement('link', { rel: 'stylesheet', href: `${base}/v1/config` }),
    prefetch: () => byElement('link', { rel: 'prefetch', href: `${base}${act}` }, 300),
    EventSource: () => byEvents(`${base}/v1/events`),
    WebSocket: () => bySocket(`${base.replace('http', 'ws')}/v1/events`),
    'WebSocket of an action': () => bySocket(`${base.replace('http', 'ws')}${act}`),
    'WebSocket of a terminal': () => {
      return bySocket(`${base.replace('http', 'ws')}/v1/tunnels/asks/terminal`, ['tunward.terminal.v1']);
    },
    'frame of the panel': () => byFrame(`${base}/`),
    'frame of the list': () => byFrame(`${base}/v1/tunnels`),
    form: () => byForm(`${base}${act}`, 'application/x-www-form-urlencoded', ['force', 'true']),
    'form of many parts': () => byForm(`${base}${act}`, 'multipart/form-data', ['force', 'true']),
    'form that is JSON': () => byForm(`${base}/v1/operations`, 'text/plain', [`${order.slice(0, -1)},"x":"`, '"}']),
    'form that looks': () => byForm(`${base}/v1/tunnels`, 'application/x-www-form-urlencoded', ['a', 'b'], 'get'),
    'frame without an origin': () =>
      bySandbox(`fetch('${base}${act}', { method: 'POST', mode: 'no-cors', credentials: 'include' })`),
  };
  const found = {};
  for (const [name, attempt] of Object.entries(tries)) found[name] = await attempt();
  return found;
};

async function send(url, how) {
  try {
    const answer = await fetch(url, { credentials: 'include', ...how });
    return answer.type === 'opaque' ? 'sent' : `read ${answer.status}`;
  } catch {
    return 'refused';
  }
}

async function read(url, how) {
  try {
    const answer = await fetch(url, { credentials: 'include', ...how });
    return `read ${answer.status}: ${(await answer.text()).slice(0, 100)}`;
  } catch {
    return 'refused';
  }
}

function byRequest(url) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open('POST', url);
    request.withCredentials = true;
    request.onload = () => resolve(`read ${request.status}: ${request.responseText.slice(0, 100)}`);
    request.onerror = () => resolve('refused');
    request.send();
  });
}

function byElement(name, attributes, waitMs = 3000) {
  return new Promise((resolve) => {
    const before = new Set(Object.keys(globalThis));
    const element = Object.assign(document.createElement(name), attributes);
    element.onload = () => resolve(Object.keys(globalThis).some((key) => !before.has(key)) ? 'read names' : 'sent');
    element.onerror = () => resolve('refused');
    setTimeout(resolve, waitMs, 'sent');
    document.head.append(element);
  });
}

function byEvents(url) {
  return new Promise((resolve) => {
    const events = new EventSource(url, { withCredentials: true });
    events.onopen = () => resolve('read events');
    events.onerror = () => {
      events.close();
      resolve('refused');
    };
  });
}

function bySocket(url, protocols = []) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url, protocols);
    socket.onopen = () => resolve('read a socket');
    socket.onerror = () => resolve('refused');
  });
}

function byFrame(url) {
  return new Promise((resolve) => {
    const frame = Object.assign(document.createElement('iframe'), { src: url });
    frame.onload = () => {
      try {
        resolve(frame.contentDocument?.body ? 'read a frame' : 'refused');
      } catch {
        resolve('refused');
      }
    };
    document.body.append(frame);
  });
}

function byForm(action, enctype, [name, value], method = 'post') {
  return new Promise((resolve) => {
    const target = `frame${Math.random()}`;
    const frame = Object.assign(document.createElement('iframe'), { name: target });
    document.body.append(frame);
    const form = Object.assign(document.createElement('form'), { action, enctype, method, target });
    form.append(Object.assign(document.createElement('input'), { name, value }));
    document.body.append(form);
    frame.onload = () => resolve('sent');
    setTimeout(resolve, 3000, 'sent');
    form.submit();
  });
}

function bySandbox(script) {
  return new Promise((resolve) => {
    const frame = Object.assign(document.createElement('iframe'), { sandbox: 'allow-scripts' });
    addEventListener('message', () => resolve('sent'), { once: true });
    frame.srcdoc = `<script>${script}.finally(() => parent.postMessage('done', '*'))</script>`;
    document.body.append(frame);
  });
}
