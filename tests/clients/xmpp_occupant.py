"""A foreign XMPP client (slixmpp) in a room: logs in, joins with the password, sends a private message to an occupant,
waits for one, pings the occupant through the room, and leaves. Prints what happened; the exit code says whether all did.

Arguments: plain|starttls|tls host port jid password room room-password peer ca-file
"""

import asyncio
import logging
import ssl
import sys

import slixmpp

mode, host, port, jid, password, room, room_password, peer, ca_file = sys.argv[1:]
logging.basicConfig(level=logging.WARNING)


class Occupant(slixmpp.ClientXMPP):
    def __init__(self):
        super().__init__(jid, password)
        for plugin in ("xep_0030", "xep_0045", "xep_0198", "xep_0199"):
            self.register_plugin(plugin)
        # SCRAM does not show the password, even on an unencrypted connection.
        self.plugin["feature_mechanisms"].unencrypted_scram = mode == "plain"
        self.enable_plaintext = mode == "plain"
        self.enable_starttls = mode == "starttls"
        self.enable_direct_tls = mode == "tls"
        if mode == "tls":
            # slixmpp checks the certificate for the host it connects to unless it is told the domain.
            self.ssl_context = ssl.create_default_context(cafile=ca_file)
        self.ca_certs = ca_file
        self.heard = asyncio.get_event_loop().create_future()
        self.done = asyncio.get_event_loop().create_future()
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("message", self.message)
        self.add_event_handler("failed_all_auth", lambda event: self.fail("login refused"))

    def fail(self, why):
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))

    def message(self, message):
        if message["type"] == "chat" and message["from"].resource == peer and not self.heard.done():
            self.heard.set_result(message["body"])

    async def start(self, _event):
        try:
            self.send_presence()
            await self.get_roster()
            await self.plugin["xep_0045"].join_muc_wait(room, "python", password=room_password, maxstanzas=0, timeout=10)
            print("joined; peers:", self.plugin["xep_0045"].get_roster(room))
            occupant = slixmpp.JID(f"{room}/{peer}")
            self.send_message(occupant, "hello from python & <friends>", mtype="chat")
            print("got:", await asyncio.wait_for(self.heard, 10))
            await self.plugin["xep_0199"].send_ping(occupant, timeout=10)
            print("ping answered")
            await self.plugin["xep_0199"].send_ping(slixmpp.JID(self.boundjid.domain), timeout=10)
            info = await self.plugin["xep_0030"].get_info(slixmpp.JID(room), timeout=10)
            assert "muc_passwordprotected" in info["disco_info"]["features"], info
            self.plugin["xep_0045"].leave_muc(room, "python")
            await self.disconnect()
            self.done.set_result(True)
        except Exception as error:
            self.fail(repr(error))


async def main():
    occupant = Occupant()
    occupant.connect(host, int(port))
    await asyncio.wait_for(occupant.done, 30)
    print("done over", mode)


try:
    asyncio.run(main())
except Exception as error:
    sys.exit(f"failed: {error!r}")
