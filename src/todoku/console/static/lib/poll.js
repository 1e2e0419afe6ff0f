// Ask again from time to time, while somebody looks.
import { useCallback, useEffect, useRef, useState } from "./html.js";

/** Return `{data, error, at, reload}` of what `load(abort)` returns; it is asked again every `seconds`.
 *
 * What was found stays while an error lasts, so that a service that restarts does not empty the page. It is
 * dropped when `key` changes. */
export function usePolled(load, { seconds = 5, key = "" } = {}) {
  const [state, setState] = useState({ data: null, error: null, at: null, key });
  const latest = useRef(load);
  latest.current = load;
  const timer = useRef(null);
  const running = useRef(null);

  const ask = useCallback(async () => {
    clearTimeout(timer.current);
    running.current?.abort();
    const abort = (running.current = new AbortController());
    try {
      const data = await latest.current(abort.signal);
      if (!abort.signal.aborted) setState({ data, error: null, at: Date.now(), key });
    } catch (error) {
      if (abort.signal.aborted) return;
      setState((before) => ({ ...(before.key === key ? before : { data: null, at: null }), error, key }));
    }
    if (!abort.signal.aborted && seconds) timer.current = setTimeout(() => !document.hidden && ask(), seconds * 1000);
  }, [key, seconds]);

  useEffect(() => {
    const wake = () => !document.hidden && ask();
    document.addEventListener("visibilitychange", wake);
    ask();
    return () => {
      document.removeEventListener("visibilitychange", wake);
      clearTimeout(timer.current);
      running.current?.abort();
    };
  }, [ask]);

  const current = state.key === key ? state : { data: null, error: null, at: null };
  return { data: current.data, error: current.error, at: current.at, reload: ask };
}
