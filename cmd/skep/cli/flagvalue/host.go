package flagvalue

import (
	"fmt"
	"net/netip"
	"strings"
)

// hostGateway is Docker's word for the address of a container's node.
const hostGateway = "host-gateway"

// Hosts collects lines of /etc/hosts, each written NAME:IP or NAME=IP, and kept as "IP NAME".
type Hosts []string

// Set adds one line.
func (h *Hosts) Set(text string) error {
	name, address := cutHost(text)
	if name == "" || address == "" || strings.Contains(name, ":") {
		return fmt.Errorf("bad format for add-host: %q: write NAME:IP", text)
	}
	if strings.HasPrefix(address, "//") { // tcp://HOST
		return fmt.Errorf("bad format for add-host: %q: the daemon to connect to is named before the command: 'skep --host HOST service create'", text)
	}
	if address == hostGateway {
		return fmt.Errorf("invalid IP address in add-host: %q: containers don't reach their node: write the address of the machine that is meant", address)
	}
	if ip, err := netip.ParseAddr(address); err != nil || ip.Zone() != "" {
		return fmt.Errorf("invalid IP address in add-host: %q", address)
	}
	*h = append(*h, address+" "+name)
	return nil
}

// String is empty: the default is none.
func (h *Hosts) String() string { return strings.Join(*h, ", ") }

// Type is Docker's word.
func (h *Hosts) Type() string { return "list" }

// HostName is a name to take out of /etc/hosts.
type HostName struct {
	Name string
	// Address is that of the lines it is taken out of; empty is any.
	Address string
}

// String is the name as it is typed.
func (n HostName) String() string {
	if n.Address == "" {
		return n.Name
	}
	return n.Name + ":" + n.Address
}

// In reports whether a line, "IP NAME" with further names, has the name.
func (n HostName) In(line string) bool { return n.outOf(line) != line }

// OutOf returns the lines without the name. A line with no other name is left out.
func (n HostName) OutOf(lines []string) []string {
	var out []string
	for _, line := range lines {
		if line = n.outOf(line); strings.Contains(line, " ") {
			out = append(out, line)
		}
	}
	return out
}

func (n HostName) outOf(line string) string {
	address, names, _ := strings.Cut(line, " ")
	if n.Address != "" && n.Address != address {
		return line
	}
	kept := address
	for name := range strings.SplitSeq(names, " ") {
		if name != n.Name {
			kept += " " + name
		}
	}
	return kept
}

// HostNames collects names to remove, each written NAME, NAME:IP or NAME=IP.
type HostNames []HostName

// Set adds one.
func (h *HostNames) Set(text string) error {
	name, address := cutHost(text)
	if name == "" {
		return fmt.Errorf("%q names no host: write NAME, or NAME:IP", text)
	}
	*h = append(*h, HostName{name, address})
	return nil
}

// String is empty: the default is none.
func (h *HostNames) String() string { return "" }

// Type is Docker's word.
func (h *HostNames) Type() string { return "list" }

// cutHost splits NAME:IP or NAME=IP, with the address in brackets or not.
func cutHost(text string) (name, address string) {
	name, address, found := strings.Cut(text, "=")
	if !found {
		name, address, _ = strings.Cut(text, ":") // an IPv6 address has more of them
	}
	if inner, ok := strings.CutPrefix(address, "["); ok && strings.HasSuffix(inner, "]") {
		address = strings.TrimSuffix(inner, "]")
	}
	return name, address
}
