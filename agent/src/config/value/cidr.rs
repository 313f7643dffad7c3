//! Ranges of addresses.

use std::{borrow::Cow, fmt, net::IpAddr};

use super::text::{Kind, reads_from_text};

/// `10.0.0.0/8`, `2001:db8::/32`, or one address. A v4 address written as v6 (`::ffff:10.0.0.1`) is the v4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

reads_from_text!(Cidr);

impl Cidr {
    /// The range of the addresses that begin with the first `bits` of `address`; `None` where it has fewer.
    pub fn of(address: IpAddr, bits: u8) -> Option<Self> {
        let address = match address.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits.into())?);
                IpAddr::V4((u32::from(address) & mask.unwrap_or(0)).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128_u32.checked_sub(bits.into())?);
                IpAddr::V6((u128::from(address) & mask.unwrap_or(0)).into())
            }
        };
        Some(Self { address, bits })
    }

    /// Whether `address` is of this range.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.to_canonical().is_ipv4() == self.address.is_ipv4()
            && Self::of(address, self.bits) == Some(*self)
    }

    /// How many bits all its addresses share.
    pub fn bits(&self) -> u8 {
        self.bits
    }
}

impl Kind for Cidr {
    type Value = Self;
    const NAME: &'static str = "Cidr";
    const EXPECTED: &'static str =
        "addresses such as 10.0.0.0/8 or 2001:db8::/32, or one address such as 192.0.2.7";
    const PATTERN: Option<&'static str> = Some("^[0-9a-fA-F.:]+(/[0-9]{1,3})?$");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| "")?;
        let canonical = address.to_canonical();
        let most = if canonical.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => {
                let plain = bits.bytes().all(|byte| byte.is_ascii_digit());
                let bits: u8 = bits
                    .parse()
                    .ok()
                    .filter(|_| plain)
                    .ok_or("after / comes a number of bits")?;
                // `::ffff:10.0.0.0/104` is 10.0.0.0/8.
                match address.is_ipv6() && canonical.is_ipv4() {
                    true => bits
                        .checked_sub(96)
                        .ok_or("a v4 address written as v6 has at least /96")?,
                    false => bits,
                }
            }
        };
        let range = Self::of(canonical, bits)
            .ok_or_else(|| format!("these addresses have at most {most} bits"))?;
        match range.address == canonical {
            true => Ok(range),
            false => Err(format!("it has bits beyond /{bits}; write {range}").into()),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(range: &str, address: &str) -> bool {
        let range: Cidr = range.parse().unwrap();
        range.contains(address.parse().unwrap())
    }

    #[test]
    fn a_range_contains_the_addresses_that_share_its_first_bits() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!contains("2001:db8::/32", "2001:db9::"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
    }

    #[test]
    fn a_v4_address_is_one_however_it_is_written_and_in_no_range_of_v6() {
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(!contains("::/0", "10.1.2.3"));
        assert!(!contains("::/0", "::ffff:10.1.2.3"));
        assert!(!contains("0.0.0.0/0", "::1"));
    }

    #[test]
    fn refuses_ranges_that_may_mean_two_things() {
        for wrong in [
            "",
            "10",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.1/8",
            "010.0.0.0/8",
            "2001:db8::1/32",
            "::/129",
            "::ffff:10.0.0.0/8",
            "10.0.0.0/8 ",
            "example.org",
        ] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
        let error = "10.1.2.3/8".parse::<Cidr>().unwrap_err().to_string();
        assert!(error.contains("write 10.0.0.0/8"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_read_reads_again_from_what_it_shows(address: IpAddr, bits in 0_u8..=128) {
            if let Some(range) = Cidr::of(address, bits) {
                prop_assert!(range.contains(address));
                prop_assert_eq!(range.to_string().parse::<Cidr>().unwrap(), range);
            }
        }
    }
}
