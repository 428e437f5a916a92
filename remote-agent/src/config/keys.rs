//! The table of keys of `remote.config`: what they are, what holds without them. The commented sample is printed from it.

use wps_remote_protocol::ini::settings::{Key, Kind, Part, Schema};

const SECONDS: Kind = Kind::Integer { min: 0, max: 31_536_000 };

const DEFAULT: &[Key] = &[
    Key::new("domain", Kind::Text, "Domain of the XMPP account; the address if it is left out"),
    Key::new("address", Kind::Text, "Host of the XMPP server; the domain if it is left out"),
    Key::new("port", Kind::Integer { min: 1, max: 65_535 }, "Port of the XMPP server").or("5222"),
    Key::new("user", Kind::Text, "Local part of the account").required(),
    Key::new("password", Kind::Secret("password"), "Password of the account").required(),
    Key::new(
        "tls",
        Kind::Choice(&["direct", "starttls", "none"]),
        "Protection of the connection; direct for port 5223, else starttls",
    ),
    Key::new("tls_ca_file", Kind::Path, "PEM file with certificates to trust besides the system's"),
    Key::new(
        "tls_server_name",
        Kind::Text,
        "Name that the certificate must carry; the domain if it is left out",
    ),
    Key::new(
        "tls_fingerprint_sha256",
        Kind::Text,
        "The one certificate to accept, by its SHA-256 fingerprint",
    ),
    Key::new("tls_insecure", Kind::Boolean, "Do not check the certificate").or("false"),
    Key::new("allow_plaintext", Kind::Boolean, "Permit tls = none on a loopback address").or("false"),
    Key::new("mucservice", Kind::Text, "Domain of the rooms; conference.DOMAIN if it is left out"),
    Key::new("mucservicepassword", Kind::Secret("muc_password"), "Password of the rooms"),
    Key::new("management_room", Kind::Text, "Room in which agents and orchestrators meet").or("management"),
    Key::new("agent_name", Kind::Text, "Name of this agent; the host name if it is left out"),
    Key::new(
        "services_dir",
        Kind::Path,
        "Watched folder of service descriptors; the folder of this file if it is left out",
    ),
    Key::new(
        "descriptor_encoding",
        Kind::Choice(&["utf-8", "latin1"]),
        "Encoding of the service descriptors",
    )
    .or("utf-8"),
    Key::new(
        "resource_file_dir",
        Kind::Path,
        "Where the agent keeps its records; `running` beside this file if it is left out",
    ),
    Key::new(
        "work_root",
        Kind::Path,
        "Where jobs run whose descriptor names no output_dir; `work` beside resource_file_dir if it is left out",
    ),
    Key::new("wps_execution_shared_dir", Kind::Path, "Folder shared with the orchestrator"),
    Key::new("allowed_paths", Kind::List, "Directories outside output_dir that descriptors may use"),
    Key::new("path_map", Kind::List, "Result paths as the other side sees them: D:\\share => /mnt/share"),
    Key::new(
        "capacity",
        Kind::Number { min: -1.0e9, max: 1.0e9 },
        "How much may run at a time, in units of process_weight",
    )
    .or("100"),
    Key::new(
        "load_threshold",
        Kind::Number { min: 0.0, max: 100.0 },
        "Above this use of CPU or memory no new work is taken; 100 = never refuse",
    )
    .or("100")
    .unit("%"),
    Key::new(
        "labels",
        Kind::List,
        "What this host is good for, e.g. gpu, big: orchestrators can bind jobs to agents with a label",
    ),
    Key::new("load_average_scan_minutes", Kind::Number { min: 0.0, max: 1440.0 }, "Window of the mean load")
        .or("15")
        .unit("min"),
    Key::new(
        "process_blacklist",
        Kind::Text,
        "Programs that keep new work away: [{\"name\": \"postgres\"}] or [postgres, otbcli]",
    ),
    Key::new(
        "max_parallel_jobs",
        Kind::Integer { min: 1, max: 100_000 },
        "Most jobs at a time, whatever their weight: a bound for hosts whose descriptors name none",
    )
    .or("200"),
    Key::new(
        "default_process_weight",
        Kind::Number { min: 0.0, max: 1.0e9 },
        "Weight of descriptors without process_weight",
    )
    .or("0"),
    Key::new("kill_grace_seconds", SECONDS, "Time between polite and hard kill").or("10").unit("s"),
    Key::new("retention_seconds", SECONDS, "How long the directory of a finished job is kept")
        .or("86400")
        .unit("s"),
    Key::new(
        "trusted_orchestrators",
        Kind::List,
        "Who may order executions: moderators, bare addresses, or * for anyone above visitor",
    )
    .or("moderators"),
    Key::new("run_as", Kind::Text, "User of the child (the agent must run as root)"),
    Key::new("run_as_group", Kind::Text, "Group of the child"),
    Key::new(
        "geoserver",
        Kind::Choice(&["auto", "yes", "no"]),
        "Serve GeoServer's WPS Remote plugin too; auto = if bus_class_name is there, as in files of the Python agent",
    )
    .or("auto"),
    Key::new(
        "geoserver_result_names",
        Kind::Boolean,
        "Report outputs to GeoServer as result_NAME where needed",
    )
    .or("false"),
    Key::new("legacy_pickle", Kind::Boolean, "Read pickled requests of GeoServer (plain data only)")
        .or("true"),
    Key::new("bus_class_name", Kind::Text, "Kept for old files; only xmppBus.XMPPBus exists"),
];

const UPLOADER: &[Key] = &[
    Key::new(
        "uploader_class_name",
        Kind::Text,
        "ftp, ftps, sftp or s3 (or the class names of the Python agent)",
    ),
    Key::new("uploader_host", Kind::Text, "host or host:port; an IPv6 address as [::1]:21"),
    Key::new("uploader_bucket", Kind::Text, "Bucket (s3)"),
    Key::new("uploader_region", Kind::Text, "Region (s3)").or("us-east-1"),
    Key::new(
        "uploader_public_url",
        Kind::Text,
        "Address under which clients reach what was uploaded, e.g. https://files.example.org/results; default: that of the server itself",
    ),
    Key::new("uploader_username", Kind::Text, "Account on the upload server; the access key id (s3)"),
    Key::new(
        "uploader_password",
        Kind::Secret("uploader_password"),
        "Its password; the secret access key (s3)",
    ),
    Key::new(
        "uploader_key_file",
        Kind::Path,
        "Private key instead of a password (sftp); its passphrase is uploader_passphrase",
    ),
    Key::new("uploader_private_rsa_key", Kind::Path, "Kept for old files"),
    Key::new("uploader_passphrase", Kind::Secret("uploader_passphrase"), "Kept for old files"),
    Key::new("uploader_ca_file", Kind::Path, "PEM file with certificates to trust (ftps, s3)"),
    Key::new("uploader_known_hosts", Kind::Path, "File of known host keys (sftp)"),
    Key::new("uploader_insecure", Kind::Boolean, "Do not check certificates and host keys").or("false"),
    Key::new("uploader_allow_plaintext", Kind::Boolean, "Permit plain ftp, and s3 over http").or("false"),
];

/// Everything that `remote.config` may hold.
pub static SCHEMA: Schema = Schema {
    env_prefix: "WPS_REMOTE_AGENT",
    parts: &[
        Part { name: "DEFAULT", doc: "The agent's account, folders and limits.", keys: DEFAULT, open: false },
        Part {
            name: "UPLOADER",
            doc: "Where outputs with upload_data = true go.",
            keys: UPLOADER,
            open: false,
        },
        Part {
            name: "Interpreters",
            doc: "What runs files that cannot be executed by themselves, by extension: py = python3",
            keys: &[],
            open: true,
        },
    ],
};
