"""What tests share: servers, upstreams, clients and other processes."""
