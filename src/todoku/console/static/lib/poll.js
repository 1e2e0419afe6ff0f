// Ask again from time to time, while somebody looks.
import { useCallback, useEffect, useRef, useState } from "./html.js";

/** Return `{data, error, at, reload}` of what `load(abort)` returns; it is asked again every `seconds`.
 *
 * What was found stays while an error lasts, so that a service that restarts does not empty the page. It is
 * dropped when `key` changes. */
export function usePolled(load, { seconds = 5, key = "" } = {}) {
  const [state, setState] = useState({ data: null, error: null, at: null, key });
  const latest = useRef(null);
  latest.current = { load, key }; // Whoever reloads gets what is shown now, not what was shown when it began.
  const timer = useRef(null);
  const running = useRef(null);

  const ask = useCallback(async () => {
    const { load: wanted, key: asked } = latest.current;
    clearTimeout(timer.current);
    running.current?.abort();
    const abort = (running.current = new AbortController());
    try {
      const data = await wanted(abort.signal);
      if (!abort.signal.aborted) setState({ data, error: null, at: Date.now(), key: asked });
    } catch (error) {
      if (abort.signal.aborted) return;
      setState((before) => ({ ...(before.key === asked ? before : { data: null, at: null }), error, key: asked }));
    }
    if (!abort.signal.aborted && seconds) timer.current = setTimeout(() => !document.hidden && ask(), seconds * 1000);
  }, [seconds]);

  useEffect(() => {
    const wake = () => !document.hidden && ask();
    document.addEventListener("visibilitychange", wake);
    ask();
    return () => {
      document.removeEventListener("visibilitychange", wake);
      clearTimeout(timer.current);
      running.current?.abort();
    };
  }, [ask, key]);

  const current = state.key === key ? state : { data: null, error: null, at: null };
  return { data: current.data, error: current.error, at: current.at, reload: ask };
}
