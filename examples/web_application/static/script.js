// Starts the relink inside this page. The client secret lives in one variable for as long as Stripe.js needs it: it is not put into an
// address, a cookie, storage, the page or the console.
"use strict";

const WORDS = {
  relinked: "Thank you. Your bank is connected again.",
  some: "Thank you. Some of your accounts are connected again; please choose the others, too, when we ask next.",
  new_authorization: "Thank you. Your bank is connected anew; we are matching your accounts.",
  no_account: "You signed in, but did not choose the account that we need. When we ask again, please choose it.",
  no_authorization: "Your bank did not let you sign in. Nothing was changed; we will ask you again.",
  other: "Something went wrong at the bank. Nothing was changed; we will ask you again.",
  cancelled: "You closed the window. Nothing was changed; you can come back whenever you like.",
  gone: "There is nothing to do any more. Thank you.",
  error: "We could not reach your bank's sign-in. Please try again later.",
};

// The branches of Stripe's guide to relinking.
function outcomeOf(session, asked) {
  const result = session.relink_result;
  if (result && result.authorization) {
    if (session.relink_options.authorization !== result.authorization) return "new_authorization";
    const linked = new Set((session.accounts.data || []).map((account) => account.id));
    return asked.every((id) => linked.has(id)) ? "relinked" : "some";
  }
  if (result && result.failure_reason) return result.failure_reason in WORDS ? result.failure_reason : "other";
  return "cancelled";
}

async function relink(button) {
  button.disabled = true;
  const reply = await fetch("/relink/modal", { method: "POST", cache: "no-store" });
  if (!reply.ok) return reply.status === 409 ? "gone" : "error";
  const { client_secret: clientSecret, accounts } = await reply.json();
  const stripe = window.Stripe(button.dataset.publishableKey);
  const { financialConnectionsSession, error } = await stripe.collectFinancialConnectionsAccounts({ clientSecret });
  return error ? "error" : outcomeOf(financialConnectionsSession, accounts);
}

const button = document.querySelector("#relink");
if (button) {
  button.addEventListener("click", async () => {
    let outcome = "error";
    try {
      outcome = await relink(button);
    } catch {
      outcome = "error"; // what was thrown may hold the secret, so it is not shown
    }
    const said = document.querySelector("#said");
    said.textContent = WORDS[outcome];
    said.dataset.outcome = outcome;
    // Whether a closed window ends the session is Stripe's to say: pressed again, the application looks first.
    button.disabled = !["error", "cancelled"].includes(outcome);
    document.querySelector("#asked").hidden = ["relinked", "some", "new_authorization", "gone"].includes(outcome);
  });
}
