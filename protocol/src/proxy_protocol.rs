//! The header by which a load balancer in front says who the client is (PROXY protocol, versions 1 and 2).
