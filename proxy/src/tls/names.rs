//! Who a certificate is for and who has signed it, written as servers compare it: `/C=DE/O=Example/CN=app`.
//!
//! The form is that of OpenSSL's `X509_NAME_oneline`; the structure is RFC 5280, section 4.1.

/// The subject and the issuer of a certificate; none where it cannot be read.
pub fn subject_and_issuer(certificate: &[u8]) -> Option<(String, String)> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut body, _) = element(certificate, SEQUENCE)?;
    if let Some((_version, rest)) = element(body, VERSION) {
        body = rest;
    }
    let (_serial, rest) = element(body, INTEGER)?;
    let (_algorithm, rest) = element(rest, SEQUENCE)?;
    let (issuer, rest) = element(rest, SEQUENCE)?;
    let (_validity, rest) = element(rest, SEQUENCE)?;
    let (subject, _) = element(rest, SEQUENCE)?;
    Some((one_line(subject)?, one_line(issuer)?))
}

const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

/// The content of the element with this tag at the start, and what comes after it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any_element(bytes)?;
    (found == tag).then_some((content, rest))
}

fn any_element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        // Four bytes are more than any certificate needs.
        let digits = rest.get(..count).filter(|digits| (1..=4).contains(&digits.len()))?;
        len = digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
        rest = &rest[count..];
    }
    Some((tag, rest.get(..len)?, &rest[len..]))
}

fn one_line(mut name: &[u8]) -> Option<String> {
    let mut line = String::new();
    while !name.is_empty() {
        let (mut set, rest) = element(name, SET)?;
        name = rest;
        while !set.is_empty() {
            let (attribute, rest) = element(set, SEQUENCE)?;
            set = rest;
            let (kind, value) = element(attribute, OBJECT_ID)?;
            let (_string_type, text, _) = any_element(value)?;
            line.push('/');
            line.push_str(&short_name(kind));
            line.push('=');
            push_text(&mut line, text);
        }
    }
    Some(line)
}

fn push_text(line: &mut String, text: &[u8]) {
    for &byte in text {
        if (b' '..=b'~').contains(&byte) {
            line.push(char::from(byte));
        } else {
            line.push_str(&format!("\\x{byte:02X}"));
        }
    }
}

/// OpenSSL's short name of an attribute, or its number.
fn short_name(kind: &[u8]) -> String {
    match kind {
        [0x55, 0x04, 0x03] => "CN".to_owned(),
        [0x55, 0x04, 0x04] => "SN".to_owned(),
        [0x55, 0x04, 0x05] => "serialNumber".to_owned(),
        [0x55, 0x04, 0x06] => "C".to_owned(),
        [0x55, 0x04, 0x07] => "L".to_owned(),
        [0x55, 0x04, 0x08] => "ST".to_owned(),
        [0x55, 0x04, 0x09] => "street".to_owned(),
        [0x55, 0x04, 0x0a] => "O".to_owned(),
        [0x55, 0x04, 0x0b] => "OU".to_owned(),
        [0x55, 0x04, 0x0c] => "title".to_owned(),
        [0x55, 0x04, 0x2a] => "GN".to_owned(),
        [0x55, 0x04, 0x2b] => "initials".to_owned(),
        // pkcs-9 1, and pilot attributes 1 and 25.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01] => "emailAddress".to_owned(),
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01] => "UID".to_owned(),
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19] => "DC".to_owned(),
        other => dotted(other),
    }
}

fn dotted(kind: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0u64;
    for byte in kind {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first);
                number -= first * 40;
            }
            numbers.push(number);
            number = 0;
        }
    }
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, text) in names {
            params.distinguished_name.push(kind.clone(), *text);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_written_as_openssl_does() {
        let check = |names: &[(DnType, &str)], expected: &str| {
            let expected = Some((expected.to_owned(), expected.to_owned()));
            assert_eq!(subject_and_issuer(&certificate(names)), expected);
        };
        check(&[], "");
        check(&[(DnType::CommonName, "app")], "/CN=app");
        let long = [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Ex / am=ple"),
            (DnType::OrganizationalUnitName, "\u{e4}"),
            (DnType::CustomDnType(vec![2, 5, 4, 97]), "n"),
            (DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]), "a@b"),
        ];
        check(&long, "/C=DE/O=Ex / am=ple/OU=\\xC3\\xA4/2.5.4.97=n/emailAddress=a@b");
    }

    proptest! {
        #[test]
        fn what_is_cut_or_damaged_does_no_harm(at in 0usize..300, byte in any::<u8>()) {
            let whole = certificate(&[(DnType::CommonName, "app")]);
            let at = at % whole.len();
            prop_assert_eq!(subject_and_issuer(&whole[..at]), None);
            let mut damaged = whole;
            damaged[at] = byte;
            let _ = subject_and_issuer(&damaged);
        }
    }
}
