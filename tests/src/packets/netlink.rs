//! Addresses, routes and rules of the network namespace that this thread is in. Where a router runs there may be no program `ip` to ask.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::Inet;

/// Before the main table (32766), after the table of own addresses (0).
const RULE_PRIORITY: u32 = 100;

/// An address that a device has.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) device: String,
    pub(super) index: u32,
    pub(super) address: Ipv4Addr,
}

/// What was changed; taken back when dropped. Belongs to the namespace that it was opened in.
#[derive(Debug)]
pub(super) struct Changes {
    kernel: Socket,
    undo: Vec<RouteNetlinkMessage>,
}

impl Changes {
    pub(super) fn begin() -> io::Result<Self> {
        let mut kernel = Socket::new(NETLINK_ROUTE)?;
        kernel.bind_auto()?;
        kernel.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            kernel,
            undo: Vec::new(),
        })
    }

    /// All IPv4 addresses.
    pub(super) fn addresses(&self) -> io::Result<Vec<Held>> {
        let mut all = AddressMessage::default();
        all.header.family = AddressFamily::Inet;
        let answers = self.ask(RouteNetlinkMessage::GetAddress(all), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(held).collect())
    }

    /// Gives a device a further address.
    pub(super) fn add_address(&mut self, index: u32, inet: Inet) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = inet.prefix;
        message.header.index = index;
        let address = IpAddr::V4(inet.address);
        message.attributes = vec![
            AddressAttribute::Local(address),
            AddressAttribute::Address(address),
        ];
        self.add(RouteNetlinkMessage::NewAddress(message.clone()))?;
        self.undo.push(RouteNetlinkMessage::DelAddress(message));
        Ok(())
    }

    /// Sends all that is looked up in `table` out of a device. It goes when the device does.
    pub(super) fn add_default_route(&self, table: u8, index: u32) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: AddressFamily::Inet,
            table,
            protocol: RouteProtocol::Static,
            scope: RouteScope::Link,
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        message.attributes = vec![RouteAttribute::Oif(index)];
        self.add(RouteNetlinkMessage::NewRoute(message))
    }

    /// Looks up in `table` what comes in by a device and is for somebody else.
    pub(super) fn add_rule(&mut self, device: &str, table: u8) -> io::Result<()> {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.table = table;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Priority(RULE_PRIORITY),
            RuleAttribute::Iifname(device.to_owned()),
        ];
        self.add(RouteNetlinkMessage::NewRule(message.clone()))?;
        self.undo.push(RouteNetlinkMessage::DelRule(message));
        Ok(())
    }

    /// Without a link-local address the kernel says nothing of its own accord on a device.
    pub(super) fn quiet(&self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
            vec![none],
        )])];
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .map(drop)
    }

    fn add(&self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
    }

    /// What the kernel answers, up to the end of a dump or the acknowledgement.
    fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.kernel.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (received, _) = self.kernel.recv_from_full()?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                // Each message begins at a multiple of four bytes, and the last one may be shorter.
                let length = (answer.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        while let Some(message) = self.undo.pop() {
            // What cannot be taken back is left; there is nobody to tell.
            let _taken_back = self.ask(message, NLM_F_ACK);
        }
    }
}

fn held(message: RouteNetlinkMessage) -> Option<Held> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let mut address = None;
    let mut device = None;
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(local)) => address = Some(local),
            // A label may have an alias behind the device's name.
            AddressAttribute::Label(label) => {
                device = label.split(':').next().map(ToOwned::to_owned);
            }
            _ => {}
        }
    }
    Some(Held {
        device: device?,
        index: message.header.index,
        address: address?,
    })
}
