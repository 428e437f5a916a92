-- Prosody 0.12 or later for an orchestrator and its agents, and nothing else. README.md beside this file says how to
-- put it in place. Replace xmpp.example.org everywhere.

pidfile = "/run/prosody/prosody.pid"
log = { info = "*syslog" }

modules_enabled = { "roster", "saslauth", "tls", "disco", "ping", "limits" }
-- No federation: nobody outside talks to the agents.
modules_disabled = { "s2s" }
s2s_ports = { }

-- Accounts are made with prosodyctl only, and passwords are stored salted.
allow_registration = false
authentication = "internal_hashed"

-- 5222 with STARTTLS, 5223 with TLS from the first byte; passwords never travel in clear.
c2s_ports = { 5222 }
c2s_direct_tls_ports = { 5223 }
c2s_require_encryption = true
ssl = {
	certificate = "/etc/prosody/certs/xmpp.example.org.crt";
	key = "/etc/prosody/certs/xmpp.example.org.key";
}

-- Requests and answers are small and wait for each other: with Nagle's algorithm each round trip takes 44 ms instead
-- of one.
network_settings = { nagle = false }
-- Largest stanza; our programs send at most 200 kB. The rate must not throttle an orchestrator with many agents.
c2s_stanza_size_limit = 262144
limits = { c2s = { rate = "10mb/s", burst = "5s" } }

-- The orchestrator's account may create rooms (see restrict_room_creation below).
admins = { "orchestrator@xmpp.example.org" }

VirtualHost "xmpp.example.org"

Component "conference.xmpp.example.org" "muc"
	-- Only admins create rooms: an agent that comes first waits for the orchestrator instead of owning a room without
	-- a password.
	restrict_room_creation = true
	-- A new room stays closed to others until its owner has set the password. This is the default; leave it on.
	muc_room_locking = true
	muc_room_default_public = false
	muc_room_default_persistent = false
	-- Nothing that is said is kept.
	max_history_messages = 0
