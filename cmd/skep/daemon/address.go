package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/skep-io/skep/internal/fault"
)

// defaultPort is Swarm's: one TLS port for everything between nodes.
const defaultPort = 2377

// withDefaultPort returns address with the default port when it has none.
func withDefaultPort(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), strconv.Itoa(defaultPort))
}

// listenAddress returns the address to listen on: that of the user, an interface's, or all.
func listenAddress(wanted string) (string, error) {
	if wanted == "" {
		wanted = "0.0.0.0"
	}
	host, port, err := net.SplitHostPort(withDefaultPort(wanted))
	if err != nil {
		return "", fault.New(fault.Invalid, "listen address %q: %w", wanted, err)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return net.JoinHostPort(host, port), nil
	}
	addr, err := interfaceAddress(host)
	if err != nil {
		return "", fault.New(fault.Invalid, "listen address %q: %w", wanted, err)
	}
	return net.JoinHostPort(addr.String(), port), nil
}

// advertiseAddress returns the host:port that other nodes are told: that of the user, an interface's, that of the listen
// address if it names one, or the machine's only address.
func advertiseAddress(wanted, listen string) (string, error) {
	listenHost, listenPort, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fault.New(fault.Invalid, "listen address %q: %w", listen, err)
	}
	if wanted == "" {
		if addr, err := netip.ParseAddr(listenHost); err == nil && !addr.IsUnspecified() {
			return listen, nil
		}
		addr, err := onlyAddress()
		if err != nil {
			return "", err
		}
		return net.JoinHostPort(addr.String(), listenPort), nil
	}
	host, port, err := net.SplitHostPort(wanted)
	if err != nil {
		host, port = strings.Trim(wanted, "[]"), listenPort
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.IsUnspecified() {
			return "", fault.New(fault.Invalid, "advertise address must be a non-zero IP address or network interface (with optional port number)")
		}
		return net.JoinHostPort(host, port), nil
	}
	addr, err := interfaceAddress(host)
	if err != nil {
		return "", fault.New(fault.Invalid, "advertise address %q: %w", wanted, err)
	}
	return net.JoinHostPort(addr.String(), port), nil
}

// localAddress returns where this machine reaches itself when it listens on an address. What it advertises may be an address that
// only others can reach, such as that of a router before it.
func localAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil || !addr.IsUnspecified():
		return listen
	case addr.Is4():
		return net.JoinHostPort("127.0.0.1", port)
	}
	return net.JoinHostPort("::1", port)
}

// interfaceAddress returns the one usable address of an interface, IPv4 before IPv6.
func interfaceAddress(name string) (netip.Addr, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s is neither an IP address nor a network interface of this machine", name)
	}
	addrs, err := usable(*link)
	if err != nil {
		return netip.Addr{}, err
	}
	switch len(addrs) {
	case 0:
		return netip.Addr{}, fmt.Errorf("interface %s has no usable address", name)
	case 1:
		return addrs[0], nil
	}
	return netip.Addr{}, fmt.Errorf("interface %s has more than one address (%s and %s): give one of them", name, addrs[0], addrs[1])
}

// onlyAddress returns the machine's address, or says between which the user must choose.
func onlyAddress() (netip.Addr, error) {
	links, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list network interfaces: %w", err)
	}
	var found netip.Addr
	var foundOn string
	for _, link := range links {
		if link.Flags&net.FlagLoopback != 0 || link.Flags&net.FlagUp == 0 || ownBridge(link.Name) {
			continue
		}
		addrs, err := usable(link)
		if err != nil {
			return netip.Addr{}, err
		}
		for _, addr := range addrs {
			if found.IsValid() {
				return netip.Addr{}, fault.New(fault.Invalid,
					"could not choose an IP address to advertise since this system has multiple addresses (%s on %s and %s on %s): specify one with --advertise-addr",
					found, foundOn, addr, link.Name)
			}
			found, foundOn = addr, link.Name
		}
	}
	if !found.IsValid() {
		return netip.Addr{}, fault.New(fault.Precondition, "could not find the system's IP address: specify one with --advertise-addr")
	}
	return found, nil
}

// ownAddress reports whether the host of host:port is an address of this machine.
func ownAddress(address string) (bool, error) {
	wanted, err := netip.ParseAddrPort(address)
	if err != nil {
		return false, err
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	for _, addr := range addrs {
		if prefix, err := netip.ParsePrefix(addr.String()); err == nil && prefix.Addr().Unmap() == wanted.Addr().Unmap() {
			return true, nil
		}
	}
	return false, nil
}

// ownBridge reports whether an interface is one that container engines make for their own containers.
func ownBridge(name string) bool {
	for _, prefix := range []string{"skep", "docker", "br-", "veth", "podman", "cni"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// usable returns an interface's IPv4 addresses, or its global IPv6 addresses when it has no IPv4.
func usable(link net.Interface) ([]netip.Addr, error) {
	addrs, err := link.Addrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", link.Name, err)
	}
	var v4, v6 []netip.Addr
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		switch addr := prefix.Addr(); {
		case addr.Is4():
			v4 = append(v4, addr)
		case addr.IsGlobalUnicast():
			v6 = append(v6, addr)
		}
	}
	if len(v4) > 0 {
		return v4, nil
	}
	return v6, nil
}
