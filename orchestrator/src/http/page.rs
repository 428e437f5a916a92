//! The page at `/` for people: what is offered, by whom, and where. Needs nothing but itself to be shown.

use std::fmt::Write;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{AppState, Operation, Peer, links};

/// Most processes on the page; the capabilities have all.
const MAX_SHOWN: usize = 500;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.6rem;margin-bottom:0}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
td,th{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd}code{background:#f3f3f3;padding:.1rem .3rem}\
.dim{color:#666}@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}code{background:#2a2a2a}td,th{border-color:#333}a{color:#8bf}}";

/// The page.
pub(super) async fn landing(State(state): State<AppState>, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let base = links::base(&state.config, request.headers(), request.uri(), peer);
    let mut response = Response::new(Body::from(render(&state, &base)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(Operation("page"));
    response
}

fn render(state: &AppState, base: &str) -> String {
    let catalogue = state.jobs.catalogue();
    let overview = state.overview.borrow().clone();
    let info = &state.config.service;
    let mut page = String::with_capacity(8192);
    let title = escape(&info.title);
    let _ = write!(
        page,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><h1>{title}</h1><p class=\"dim\">{}</p>",
        escape(&info.summary)
    );
    let url = escape(base);
    let capabilities = "service=WPS&amp;request=GetCapabilities";
    let _ = write!(
        page,
        "<h2>Service</h2><p>WPS 1.0.0: <code>{url}/wps</code> \
         (<a href=\"{url}/wps?{capabilities}\">capabilities</a>)<br>WPS 2.0.2: <code>{url}/wps</code> \
         (<a href=\"{url}/wps?{capabilities}&amp;version=2.0.0\">capabilities</a>)</p>\
         <p><a href=\"{url}/health\">Health</a> · <a href=\"{url}/metrics\">Metrics</a> · \
         <a href=\"{url}/agents\">Agents</a> · <a href=\"{url}/jobs\">Jobs</a></p>"
    );
    let _ = write!(page, "<h2>Processes ({})</h2>", catalogue.processes.len());
    if catalogue.processes.is_empty() {
        page.push_str("<p>None yet: no agent that offers one is online.</p>");
    } else {
        page.push_str("<table><tr><th>Identifier</th><th>Title</th></tr>");
        for (id, process) in catalogue.processes.iter().take(MAX_SHOWN) {
            let encoded = utf8_percent_encode(id, NON_ALPHANUMERIC);
            let _ = write!(
                page,
                "<tr><td><a href=\"{url}/wps?service=WPS&amp;version=1.0.0&amp;request=DescribeProcess&amp;identifier={encoded}\">\
                 {}</a></td><td>{}<br><span class=\"dim\">{}</span></td></tr>",
                escape(id),
                escape(&process.title),
                escape(&crate::encoding::clip(&process.summary, 300))
            );
        }
        page.push_str("</table>");
    }
    let _ = write!(page, "<h2>Agents ({})</h2>", overview.agents.len());
    if !overview.connected {
        page.push_str("<p>Not connected to the XMPP server.</p>");
    }
    if !overview.agents.is_empty() {
        page.push_str(
            "<table><tr><th>Agent</th><th>Software</th><th>Processes</th><th>Running</th><th>State</th></tr>",
        );
        for agent in &overview.agents {
            let _ = write!(
                page,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(agent.id.as_str()),
                escape(&agent.software),
                agent.processes.len(),
                agent.executions.len(),
                if agent.ready { "ready" } else { "takes no work" }
            );
        }
        page.push_str("</table>");
    }
    page.push_str("</body></html>\n");
    page
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
