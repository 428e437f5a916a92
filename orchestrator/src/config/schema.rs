//! The table of all keys of `orchestrator.ini`.

use wps_remote_protocol::ini::settings::{Key, Kind, Part, Schema};

const WHOLE: Kind = Kind::Integer { min: 0, max: i64::MAX / 10_000 };
const PERCENT: Kind = Kind::Number { min: 0.0, max: 100.1 };
const POSITIVE: Kind = Kind::Integer { min: 1, max: i64::MAX / 10_000 };

/// Every section and key of `orchestrator.ini`; `WPS_ORCHESTRATOR_SECTION_KEY` in the environment overrides a key.
pub const SCHEMA: Schema = Schema {
    env_prefix: "WPS_ORCHESTRATOR",
    parts: &[
        Part {
            name: "http",
            doc: "The HTTP side: where clients connect.",
            open: false,
            keys: &[
                Key::new(
                    "listen",
                    Kind::Text,
                    "Address and port; anything but loopback makes the service public",
                )
                .or("127.0.0.1:8080"),
                Key::new(
                    "public_url",
                    Kind::Text,
                    "How clients reach us through a proxy, e.g. https://wps.example.org; else taken from the request",
                ),
                Key::new(
                    "trusted_proxies",
                    Kind::List,
                    "IP addresses whose X-Forwarded-* headers are believed",
                )
                .or(""),
                Key::new(
                    "cors_origins",
                    Kind::List,
                    "Web pages of these origins may use the service; * = all",
                )
                .or("*"),
                Key::new("max_body_mb", POSITIVE, "Largest request body").or("50").unit("MB"),
                Key::new(
                    "max_inline_mb",
                    POSITIVE,
                    "Largest result that is put into a document; a larger one is linked",
                )
                .or("32")
                .unit("MB"),
                Key::new(
                    "certificate",
                    Kind::Path,
                    "Certificate chain in PEM: `listen` then speaks HTTPS only; read again when it changes, and on SIGHUP",
                ),
                Key::new("key", Kind::Path, "Its private key in PEM"),
                Key::new(
                    "max_connections",
                    Kind::Integer { min: 16, max: 1_000_000 },
                    "Most connections at once; when more come, those give way that were idle for the longest time",
                )
                .or("4096"),
                Key::new(
                    "max_connections_per_address",
                    WHOLE,
                    "Most connections at once from one address (a /64 network of IPv6 is one), proxies excepted; 0 = no bound; default: 256, none on loopback",
                ),
                Key::new(
                    "requests_per_minute",
                    WHOLE,
                    "Most requests in a minute from one address; 0 = no bound; default: 6000, none on loopback",
                ),
                Key::new(
                    "user_requests_per_minute",
                    WHOLE,
                    "Most requests in a minute of one user who has logged in; 0 = no bound",
                )
                .or("0"),
                Key::new(
                    "header_timeout_s",
                    POSITIVE,
                    "Longest time to receive the head of a request, and longest silence between two requests",
                )
                .or("30")
                .unit("s"),
                Key::new("request_timeout_s", POSITIVE, "Longest time to receive a request")
                    .or("60")
                    .unit("s"),
                Key::new(
                    "stall_timeout_s",
                    POSITIVE,
                    "Longest time that a client may take nothing of an answer that is on its way",
                )
                .or("120")
                .unit("s"),
                Key::new(
                    "sync_timeout_s",
                    POSITIVE,
                    "Longest time that a synchronous Execute is kept waiting",
                )
                .or("600")
                .unit("s"),
                Key::new(
                    "settle_ms",
                    WHOLE,
                    "How long an asynchronous Execute waits for a quick end before it answers",
                )
                .or("0")
                .unit("ms"),
            ],
        },
        Part {
            name: "service",
            doc: "What the capabilities say about the service and its provider.",
            open: false,
            keys: &[
                Key::new("title", Kind::Text, "Title").or("Remote processes"),
                Key::new("abstract", Kind::Text, "Abstract")
                    .or("Processes of remote agents, offered as an OGC Web Processing Service."),
                Key::new("keywords", Kind::List, "Keywords").or("WPS, processing"),
                Key::new("provider_name", Kind::Text, "Who offers the service").or("unnamed provider"),
                Key::new("provider_url", Kind::Text, "Web site of the provider"),
                Key::new("contact_name", Kind::Text, "Person to ask"),
                Key::new("contact_position", Kind::Text, "That person's position"),
                Key::new("contact_phone", Kind::Text, "Telephone"),
                Key::new("contact_email", Kind::Text, "Address to write to"),
                Key::new("fees", Kind::Text, "Fees").or("NONE"),
                Key::new("access_constraints", Kind::Text, "Access constraints").or("NONE"),
            ],
        },
        Part {
            name: "xmpp",
            doc: "Our session on the XMPP server. With the embedded server only the names matter.",
            open: false,
            keys: &[
                Key::new("address", Kind::Text, "Host of the XMPP server; default: the domain"),
                Key::new("port", Kind::Integer { min: 1, max: 65535 }, "Its port").or("5222"),
                Key::new("domain", Kind::Text, "Domain of the accounts").or("wps.localhost"),
                Key::new("user", Kind::Text, "Our account, without the domain").or("orchestrator"),
                Key::new(
                    "password",
                    Kind::Secret("password"),
                    "Its password; not needed with the embedded server",
                ),
                Key::new(
                    "tls",
                    Kind::Choice(&["starttls", "direct", "none"]),
                    "How the connection is secured; default: direct on port 5223, else starttls; none only on loopback",
                ),
                Key::new("tls_ca_file", Kind::Path, "Certificates to trust; default: those of the system"),
                Key::new(
                    "tls_server_name",
                    Kind::Text,
                    "Name in the server's certificate, if it is not the domain",
                ),
                Key::new(
                    "tls_fingerprint_sha256",
                    Kind::Text,
                    "Trust exactly the certificate with this SHA-256",
                ),
                Key::new("tls_insecure", Kind::Boolean, "Do not check the certificate (unwise)").or("false"),
                Key::new(
                    "muc_service",
                    Kind::Text,
                    "Domain of the rooms; default: conference. and the domain",
                ),
                Key::new(
                    "muc_password",
                    Kind::Secret("muc_password"),
                    "Password of our rooms; default: made at the first start and kept in data_dir/room-password",
                ),
                Key::new("management_room", Kind::Text, "Room in which agents and orchestrators meet")
                    .or("management"),
                Key::new(
                    "nick",
                    Kind::Text,
                    "Our name in it; default: orchestrator, with [store] url orchestrator- and the node's name",
                ),
            ],
        },
        Part {
            name: "xmpp_server",
            doc: "The embedded XMPP server. Accounts: wps-orchestrator accounts add NAME.",
            open: false,
            keys: &[
                Key::new("enabled", Kind::Boolean, "Off = use the server named in [xmpp]").or("true"),
                Key::new(
                    "listen",
                    Kind::Text,
                    "Address and port with STARTTLS; other hosts can connect only if this is not loopback",
                )
                .or("127.0.0.1:5222"),
                Key::new(
                    "tls_listen",
                    Kind::Text,
                    "Address and port with TLS from the first byte, if wanted",
                ),
                Key::new("accounts", Kind::Path, "File of accounts; default: data_dir/xmpp-accounts"),
                Key::new(
                    "certificate",
                    Kind::Path,
                    "Certificate chain in PEM; default: one is generated in data_dir/tls",
                ),
                Key::new("key", Kind::Path, "Its private key in PEM"),
                Key::new(
                    "max_connections",
                    POSITIVE,
                    "Most connections at once: one for each agent, and one more for each running job of an agent of the old dialect",
                )
                .or("4096"),
                Key::new(
                    "max_connections_per_address",
                    WHOLE,
                    "The same from one address; 0 = no bound; default: 256, none on loopback",
                ),
            ],
        },
        super::agents::AGENTS,
        Part {
            name: "store",
            doc: "Where jobs are kept.",
            open: false,
            keys: &[
                Key::new("data_dir", Kind::Path, "Folder of everything that has no place of its own")
                    .or("data"),
                Key::new("sqlite", Kind::Path, "The job store; default: data_dir/jobs.sqlite"),
                Key::new(
                    "url",
                    Kind::Text,
                    "A PostgreSQL database as job store instead, which several orchestrators can share: postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full",
                ),
                Key::new("password", Kind::Secret("password"), "Password of the database's user"),
                Key::new(
                    "max_connections",
                    Kind::Integer { min: 2, max: 1000 },
                    "Most connections to the database",
                )
                .or("8"),
                Key::new(
                    "node",
                    Kind::Text,
                    "Our name among the orchestrators that share the database; default: host name and a number, kept in data_dir/node",
                ),
                Key::new(
                    "lease_s",
                    Kind::Integer { min: 1, max: 3600 },
                    "An orchestrator that gives no sign of life for so long loses its jobs to the others",
                )
                .or("6")
                .unit("s"),
                Key::new(
                    "synchronous",
                    Kind::Choice(&["full", "normal"]),
                    "full: a power failure loses no accepted job; normal: faster",
                )
                .or("full"),
            ],
        },
        Part {
            name: "results",
            doc: "Files of jobs.",
            open: false,
            keys: &[
                Key::new(
                    "shared_dir",
                    Kind::Path,
                    "Folder shared with the agents (their wps_execution_shared_dir); default: data_dir/shared; none = no such folder",
                ),
                Key::new(
                    "store_dir",
                    Kind::Path,
                    "Where results are kept; best on the same file system; default: data_dir/results",
                ),
                Key::new(
                    "retention_h",
                    WHOLE,
                    "How long ended jobs and their results are kept; 0 = for ever",
                )
                .or("168")
                .unit("h"),
            ],
        },
        Part {
            name: "references",
            doc: "Inputs by reference: what is fetched on behalf of clients.",
            open: false,
            keys: &[
                Key::new(
                    "allow",
                    Kind::List,
                    "Places to fetch from: * = any public address, *.domain, host, host:port, http://host/prefix/; private addresses only where a host or prefix is named",
                )
                .or("*"),
                Key::new("rewrite", Kind::List, "What stands in for a URL: from => to, where to is a URL or an absolute path").or(""),
                Key::new("max_mb", POSITIVE, "Largest input by reference").or("2048").unit("MB"),
                Key::new("timeout_s", POSITIVE, "Longest time for one reference").or("300").unit("s"),
                Key::new("max_redirects", WHOLE, "Most redirects in a row").or("5"),
            ],
        },
        Part {
            name: "legacy",
            doc: "Agents of the old dialect: the Python agent of GeoServer's WPS Remote. Off unless rooms and agents are listed.",
            open: false,
            keys: &[
                Key::new("rooms", Kind::List, "Namespaces whose rooms are joined, e.g. default, geosolutions").or(""),
                Key::new(
                    "agents",
                    Kind::List,
                    "Agents that are believed: SERVICE@HOST or NAMESPACE/SERVICE@HOST, each part may be *",
                )
                .or(""),
                Key::new(
                    "accounts",
                    Kind::List,
                    "Accounts (user@domain) that these agents must have; the rooms must disclose them to us; default: any",
                )
                .or(""),
                Key::new(
                    "muc_password",
                    Kind::Secret("muc_password"),
                    "Password of these rooms; default: that of [xmpp]",
                ),
                Key::new(
                    "result_roots",
                    Kind::List,
                    "Folders that may hold result files of these agents, as this host sees them; default: the shared folder",
                )
                .or(""),
                Key::new(
                    "upload_dir",
                    Kind::Path,
                    "Folder that relative paths of results are relative to (GeoServer's uploadedFilesBasePath)",
                ),
                Key::new(
                    "path_map",
                    Kind::List,
                    "What stands here for the beginning of a path at the agents: /srv/out => /mnt/agents/out",
                )
                .or(""),
                Key::new("cpu_threshold", PERCENT, "CPU load from which on an agent gets no more work")
                    .or("82")
                    .unit("%"),
                Key::new("memory_threshold", PERCENT, "The same for memory").or("82").unit("%"),
                Key::new("force_execution", Kind::Boolean, "Send work above the thresholds too").or("false"),
                Key::new("heartbeat_s", POSITIVE, "Pause between two questions for an agent's load")
                    .or("30")
                    .unit("s"),
                Key::new(
                    "accept_timeout_s",
                    POSITIVE,
                    "How long a request may stay without any sign: such agents acknowledge nothing",
                )
                .or("60")
                .unit("s"),
            ],
        },
        Part {
            name: "aliases",
            doc: "Other identifiers of processes, for clients that know them by another name: alias = namespace:service",
            open: true,
            keys: &[],
        },
        Part {
            name: "limits",
            doc: "Times and bounds.",
            open: false,
            keys: &[
                Key::new("max_queued", POSITIVE, "Most jobs that may wait; more are refused with ServerBusy")
                    .or("10000"),
                super::limits::MAX_RUNNING,
                super::limits::RUNNING_PER_USER,
                super::limits::QUEUED_PER_USER,
                Key::new("max_queue_time_s", WHOLE, "Longest wait for an agent; 0 = for ever")
                    .or("86400")
                    .unit("s"),
                super::limits::RUN_TIME,
                super::limits::TOTAL_TIME,
                super::limits::REQUEST,
                super::limits::INLINE,
                super::limits::REFERENCE,
                super::limits::OUTPUT,
                super::limits::STORED,
                super::limits::STORED_JOBS,
                Key::new(
                    "agent_lost_timeout_s",
                    POSITIVE,
                    "How long an agent may be away before its jobs count as lost",
                )
                .or("300")
                .unit("s"),
                Key::new("dismiss_timeout_s", POSITIVE, "How long an agent may take to end a dismissed job")
                    .or("60")
                    .unit("s"),
                Key::new(
                    "max_attempts",
                    Kind::Integer { min: 1, max: 100 },
                    "Most attempts of a job whose descriptor allows repetition",
                )
                .or("3"),
                Key::new("heartbeat_s", POSITIVE, "Pause between two questions for an agent's load")
                    .or("10")
                    .unit("s"),
                Key::new(
                    "answer_timeout_s",
                    POSITIVE,
                    "How long an agent may take to answer; twice without answer = gone",
                )
                .or("15")
                .unit("s"),
            ],
        },
        super::access::ACCESS,
        super::access::OPENID,
        super::access::OPENID_ROLES,
        super::access::ROLE,
        super::access::PROCESS,
        super::limits::USER,
    ],
};
