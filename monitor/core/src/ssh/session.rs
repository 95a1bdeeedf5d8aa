//! Both directions of a session.

use super::{
    AuthOutcome, Authentication, Basis, Class, Hint, Segment, Side,
    direction::Direction,
    fingerprint,
    kexinit::agree,
    sizes::{self, Client, Judgement, Model, Records},
    stream::Stream,
    vocabulary::Hints,
};

/// What the segments of one connection tell.
#[derive(Debug)]
pub struct Session {
    directions: [Direction; 2],
    /// Sizes of the server's packets as agreed on; the inner None: they cannot be told.
    #[expect(
        clippy::option_option,
        reason = "not agreed yet, and agreed but unknown"
    )]
    model: Option<Option<Model>>,
    /// Boundaries of encrypted packets, from both NEWKEYS on.
    packets: Option<Box<Packets>>,
    /// Until when all segments of the client are handed on, nanoseconds.
    client_limit_ns: u64,
    /// What was known of authentication when everything else was dropped.
    settled: Option<Judgement>,
}

/// Encrypted packets of both directions.
#[derive(Debug)]
struct Packets {
    server: Records,
    /// Those of the client and how they are laid out, where they show and the server's do.
    client: Option<(Model, Records)>,
}

// === impl Session ===

impl Default for Session {
    fn default() -> Self {
        Self {
            directions: [Direction::new(Side::Client), Direction::new(Side::Server)],
            model: None,
            packets: None,
            client_limit_ns: u64::MAX,
            settled: None,
        }
    }
}

impl Session {
    /// Takes in a segment: in any order, as often as it is sent; sequence numbers wrap.
    pub fn segment(&mut self, segment: &Segment<'_>) {
        if self.settled.is_some() {
            return;
        }
        let [client, server] = &mut self.directions;
        let direction = match segment.side {
            Side::Client => client,
            Side::Server => server,
        };
        if direction.segment(segment) {
            self.model = None;
        }
        if self.model.is_none() {
            self.agree();
        }
        if self.packets.is_none() {
            self.release();
        }
        let [client, server] = &mut self.directions;
        if let (Some(packets), Some(Some(model))) = (&mut self.packets, &self.model) {
            advance(&mut packets.server, &mut server.stream, model);
            if let Some((model, records)) = &mut packets.client {
                advance(records, &mut client.stream, model);
            }
        }
    }

    /// Nothing of a side's bytes has a lower sequence number: what does is not of the connection.
    pub fn begins_at(&mut self, side: Side, sequence: u32) {
        self.directions[side as usize].stream.begins_at(sequence);
    }

    /// No segment of the client is handed on after this time.
    pub fn client_ends_at(&mut self, time_ns: u64) {
        self.client_limit_ns = self.client_limit_ns.min(time_ns);
    }

    /// Drops everything but what is known now, and takes in nothing more: what was no success by
    /// then stays unknown.
    pub fn settle(&mut self) {
        let judgement = self.look(false);
        let authentication = judgement.authentication;
        self.settled = Some(Judgement {
            authentication: if authentication.outcome == AuthOutcome::Success {
                authentication
            } else {
                Authentication::UNKNOWN
            },
            ..judgement
        });
        for direction in &mut self.directions {
            direction.stream.clear();
            direction.parsed.scan.shorten();
        }
        self.packets = None;
    }

    /// Which ends speak SSH; None as long as neither does.
    pub fn class(&self) -> Option<Class> {
        let [client, server] = self.parsed(|direction| direction.parsed.is_ssh());
        match (client, server && !self.is_echo()) {
            (true, true) => Some(Class::Ssh),
            (true, false) => Some(Class::ClientOnly),
            (false, true) => Some(Class::ServerOnly),
            (false, false) => None,
        }
    }

    /// Whether both KEXINITs are known, or what is missing will never be.
    pub fn is_identified(&self) -> bool {
        let [client, server] = &self.directions;
        let has_version_1 = |direction: &Direction| direction.parsed.scan.hints.has(Hint::Version1);
        self.settled.is_some()
            || (client.parsed.is_over() && server.parsed.is_over())
            || has_version_1(client)
            || has_version_1(server)
            || server.parsed.scan.hints.has(Hint::Refused)
            || self.is_echo()
    }

    /// Identification line without CR and LF, up to a NUL byte, of at most 255 bytes; everything but
    /// printable ASCII, and the backslash, escaped as `\xNN`.
    pub fn banner(&self, side: Side) -> Option<&str> {
        self.directions[side as usize].parsed.scan.banner.as_deref()
    }

    /// HASSH of the client, or hasshServer: lower-case hex.
    pub fn hassh(&self, side: Side) -> Option<&str> {
        self.directions[side as usize].parsed.hassh.as_deref()
    }

    /// Cookies of the client's and the server's KEXINIT, which tell this connection from all others,
    /// also where an address is translated on the way.
    pub fn cookies(&self) -> Option<([u8; 16], [u8; 16])> {
        let [client, server] = &self.directions;
        let is_known = client.parsed.has_kexinit() && server.parsed.has_kexinit();
        client
            .parsed
            .cookie
            .zip(server.parsed.cookie)
            .filter(|_| is_known)
    }

    /// Whether someone logged in, from the sizes of the server's packets; `ended`: nothing follows.
    pub fn authentication(&self, ended: bool) -> Authentication {
        self.look(ended).authentication
    }

    /// Whether the server sent what looks like a login, certain or not.
    pub fn may_be_in(&self) -> bool {
        self.look(false).login.is_some()
    }

    /// Someone is known to have logged in, by other means than sizes: attempts, and how many of them
    /// were refused, where the sizes tell.
    pub fn login(&self) -> (Option<u32>, u32) {
        match self.look(false).login {
            Some(login) => (Some(login.attempts), login.failures),
            None => (None, 0),
        }
    }

    /// The first sequence number of the client and of the server, with which they identify themselves.
    /// Translations of addresses keep them, relays do not.
    pub fn first_sequences(&self) -> [Option<u32>; 2] {
        self.directions
            .each_ref()
            .map(|direction| direction.stream.first())
    }

    fn look(&self, ended: bool) -> Judgement {
        if let Some(settled) = self.settled {
            return settled;
        }
        let [client, server] = &self.directions;
        let authentication = match (&self.packets, &self.model) {
            (Some(packets), Some(Some(model))) => {
                let client = Client {
                    stream: &client.stream,
                    records: packets.client.as_ref().map(|(_, records)| records),
                    limit_ns: self.client_limit_ns,
                };
                return sizes::judge(model, &packets.server, &client, &server.stream, ended);
            }
            (None, _) if ended && self.is_without_attempt() => Authentication {
                outcome: AuthOutcome::None,
                attempts: Some(0),
                failures: 0,
                basis: Basis::None,
            },
            _ => Authentication::UNKNOWN,
        };
        Judgement {
            authentication,
            login: None,
        }
    }

    /// What is out of the ordinary.
    pub fn hints(&self) -> impl Iterator<Item = Hint> {
        let mut hints = Hints::default();
        for direction in &self.directions {
            let parsed = &direction.parsed;
            hints = hints.and(parsed.hints).and(parsed.scan.hints);
            let side = direction.side;
            if let (Some(banner), Some(hassh)) = (self.banner(side), self.hassh(side))
                && fingerprint::is_mismatch(side, banner, hassh)
            {
                hints.set(Hint::BannerMismatch);
            }
        }
        if self.is_echo() {
            hints.set(Hint::Echo);
        }
        Hint::ALL
            .iter()
            .copied()
            .filter(move |hint| hints.has(*hint))
    }

    /// Bytes on the heap and of itself.
    pub fn bytes_held(&self) -> usize {
        let held = |direction: &Direction| direction.bytes_held();
        let packets = self.packets.as_ref().map_or(0, |packets| {
            let client = packets.client.as_ref();
            let client = client.map_or(0, |(_, records)| records.bytes_held());
            size_of::<Packets>() + packets.server.bytes_held() + client
        });
        size_of::<Self>() + self.directions.iter().map(held).sum::<usize>() + packets
    }

    /// The server's KEXINIT is the client's: random cookies are never equal.
    fn is_echo(&self) -> bool {
        let [client, server] = &self.directions;
        client.parsed.cookie.is_some()
            && client.parsed.cookie == server.parsed.cookie
            && client.parsed.scan.banner == server.parsed.scan.banner
    }

    /// One end did not get as far as NEWKEYS, without which there is no authentication, and nothing
    /// of it was missed that could have been that.
    fn is_without_attempt(&self) -> bool {
        let [_, server] = &self.directions;
        if self.is_echo() || server.parsed.scan.hints.has(Hint::Refused) {
            return true;
        }
        let has_version_1 = |direction: &Direction| direction.parsed.scan.hints.has(Hint::Version1);
        !self.directions.iter().any(has_version_1)
            && self.directions.iter().any(Direction::is_before_newkeys)
    }

    fn parsed<T>(&self, of: impl Fn(&Direction) -> T) -> [T; 2] {
        self.directions.each_ref().map(of)
    }

    /// Once both KEXINITs are there: what the server sends is of which sizes.
    fn agree(&mut self) {
        if self.is_echo() {
            return;
        }
        let [client, server] = &self.directions;
        if client.kexinit().is_none() || server.kexinit().is_none() {
            return;
        }
        let banner = self.banner(Side::Client).unwrap_or_default();
        let model = self.model_of(Side::Server);
        self.model = Some(model.map(|model| model.with_client(banner)));
    }

    /// What a side sends is of which sizes, from both KEXINITs.
    fn model_of(&self, side: Side) -> Option<Model> {
        let [client, server] = &self.directions;
        let (c, s) = (client.kexinit()?, server.kexinit()?);
        let from = side as usize;
        Model::new(
            agree(c.ciphers[from], s.ciphers[from])?,
            agree(c.macs[from], s.macs[from]),
            agree(c.compressions[from], s.compressions[from]),
            self.banner(side).unwrap_or_default(),
            self.directions[from].kexinit_length(),
        )
    }

    /// Once both NEWKEYS have passed: drops the bytes but those that show boundaries.
    fn release(&mut self) {
        let [client, server] = &self.directions;
        let has_passed = |direction: &Direction| direction.parsed.newkeys_end.is_some();
        let Some(model) = self
            .model
            .as_ref()
            .filter(|_| has_passed(client) && has_passed(server))
        else {
            return;
        };
        let shows_lengths = model.as_ref().is_some_and(Model::shows_lengths);
        // Of use only beside the server's.
        let client_model = Some(Side::Client).filter(|_| shows_lengths);
        let client_model = client_model.and_then(|side| self.model_of(side));
        let client_model = client_model.filter(Model::shows_lengths);
        let [client, server] = &mut self.directions;
        let client_newkeys_ns = client.discard_clear();
        let newkeys_ns = server.discard_clear();
        if !shows_lengths {
            server.stream.release();
        }
        if client_model.is_none() {
            client.stream.release();
        }
        self.packets = Some(Box::new(Packets {
            server: Records::new(newkeys_ns),
            client: client_model.map(|model| (model, Records::new(client_newkeys_ns))),
        }));
    }
}

/// Reads boundaries on, and drops the bytes once they are of no use.
fn advance(records: &mut Records, stream: &mut Stream, model: &Model) {
    if !records.advance(stream, model) {
        stream.release();
    }
}
