// Dead letters as rows.
import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { href } from "../lib/router.js";
import { Ago, OrderLink, Service, shortId, Status, When } from "./parts.js";

export function LetterTable({ letters }) {
  return html`<div class="scroll"><table class="wide-only-cells">
    <thead><tr><th scope="col">${t("letter")}</th><th scope="col">${t("service")}</th><th scope="col">${t("event.type")}</th><th scope="col" class="hide-small">${t("order")}</th><th scope="col">${t("order.status")}</th><th scope="col" class="num hide-small">${t("letter.attempts")}</th><th scope="col">${t("letter.parked")}</th></tr></thead>
    <tbody>${letters.map((letter) => html`<tr key=${letter.id} data-row>
      <td><a class="id" title=${letter.id} href=${href(`dead-letters?service=${letter.service}&letter=${letter.id}${letter.state === "PARKED" ? "" : `&state=${letter.state}`}`)}>${shortId(letter.id)}</a></td>
      <td><${Service} name=${letter.service} /></td><td class="break">${letter.eventType ?? "–"}</td><td class="hide-small"><${OrderLink} id=${letter.orderId} /></td>
      <td><${Status} value=${letter.state} />${letter.retryAt && html` <span class="small quiet">${t("letter.retryAt")} <${When} at=${letter.retryAt} /></span>`}</td><td class="num hide-small">${letter.attempts}</td><td><${Ago} at=${letter.parkedAt} /></td>
    </tr>`)}</tbody>
  </table></div>`;
}
