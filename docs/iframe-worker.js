// Material searches in a Worker, which browsers don't start from disk. There, a hidden frame does its work.
// The plugin `offline` would load such a script from another server, but for one of this name in mkdocs.yml.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.worker = frame.contentWindow
      this.worker.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const script = this.worker.document.createElement("script")
      script.src = url
      this.loaded = new Promise(resolve => (script.onload = resolve))
      this.worker.document.body.append(script)
    }
    postMessage(data) {
      this.loaded.then(() => this.worker.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
