package executor

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
)

const (
	// hostResolvers are where the node's name servers are, and systemdResolvers where systemd-resolved has the real ones
	// while the first names only itself.
	hostResolvers    = "/etc/resolv.conf"
	systemdResolvers = "/run/systemd/resolve/resolv.conf"
	// maxResolvers is the most bytes of these that are read.
	maxResolvers = 64 << 10
	// hostNames are the names that the node itself knows.
	hostNames = "/etc/hosts"
)

// nameFiles returns /etc/hosts and /etc/resolv.conf of a container, with what the service says of them.
func nameFiles(c *api.ContainerSpec, hostname string, address netip.Addr, readFile func(string) ([]byte, error)) (hosts, dns []byte, err error) {
	if hosts, dns, err = givenNames(c, hostname, address, readFile); err != nil {
		return nil, nil, err
	}
	return moreHosts(hosts, c.GetHosts()), resolveBy(dns, c.GetDns()), nil
}

// givenNames returns the two files as they are without the service. On the node's network they are the node's: what listens on 127.0.0.1
// there is in reach.
func givenNames(c *api.ContainerSpec, hostname string, address netip.Addr, readFile func(string) ([]byte, error)) (hosts, dns []byte, err error) {
	if !onNodesNetwork(c) {
		dns, err = resolvers(readFile)
		return hostsFile(hostname, address), dns, err
	}
	for _, file := range []struct {
		name string
		out  *[]byte
	}{{hostNames, &hosts}, {hostResolvers, &dns}} {
		if *file.out, err = nodeFile(readFile, file.name); err != nil {
			return nil, nil, fmt.Errorf("read the node's %s: %w", file.name, err)
		}
	}
	return hosts, dns, nil
}

// nodeFile returns a file of the node's as far as it is read, which is nothing if there is none.
func nodeFile(readFile func(string) ([]byte, error), name string) ([]byte, error) {
	data, err := readFile(name)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return data[:min(len(data), maxResolvers)], nil
}

// hostsFile returns /etc/hosts of a container.
func hostsFile(hostname string, address netip.Addr) []byte {
	var out bytes.Buffer
	out.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if address.IsValid() {
		fmt.Fprintf(&out, "%s\t%s\n", address, hostname)
	}
	return out.Bytes()
}

// moreHosts adds a service's lines to /etc/hosts. The managers have seen to it that each is one.
func moreHosts(hosts []byte, lines []string) []byte {
	if len(lines) == 0 {
		return hosts
	}
	if len(hosts) > 0 && hosts[len(hosts)-1] != '\n' {
		hosts = append(hosts, '\n')
	}
	for _, line := range lines {
		address, names, _ := strings.Cut(line, " ")
		hosts = fmt.Appendf(hosts, "%s\t%s\n", address, names)
	}
	return hosts
}

// resolveBy puts what a service says of /etc/resolv.conf in the place of what it has of that kind.
func resolveBy(dns []byte, c *api.DNSConfig) []byte {
	if len(c.GetNameservers())+len(c.GetSearch())+len(c.GetOptions()) == 0 {
		return dns
	}
	search := slices.DeleteFunc(slices.Clone(c.GetSearch()), func(domain string) bool { return domain == "." })
	var out []byte
	for line := range strings.Lines(string(dns)) {
		keyword := ""
		if fields := strings.Fields(line); len(fields) > 0 {
			keyword = fields[0]
		}
		switch {
		case keyword == "nameserver" && len(c.GetNameservers()) > 0:
		case (keyword == "search" || keyword == "domain") && len(c.GetSearch()) > 0:
		case keyword == "options" && len(c.GetOptions()) > 0:
		default:
			out = append(append(out, strings.TrimSuffix(line, "\n")...), '\n')
		}
	}
	for _, server := range c.GetNameservers() {
		out = fmt.Appendf(out, "nameserver %s\n", server)
	}
	if len(search) > 0 {
		out = fmt.Appendf(out, "search %s\n", strings.Join(search, " "))
	}
	if len(c.GetOptions()) > 0 {
		out = fmt.Appendf(out, "options %s\n", strings.Join(c.GetOptions(), " "))
	}
	return out
}

// resolvers returns /etc/resolv.conf of a container: the node's, without name servers on the node's own loopback, which a
// container can't reach. When that leaves none, they are taken from systemd-resolved.
func resolvers(readFile func(string) ([]byte, error)) ([]byte, error) {
	data, err := nodeFile(readFile, hostResolvers)
	if err != nil {
		return nil, fmt.Errorf("read the node's name servers: %w", err)
	}
	out, servers := reachable(data)
	if servers > 0 {
		return out, nil
	}
	if data, err = nodeFile(readFile, systemdResolvers); err != nil {
		return out, nil // the node has none that a container could use
	}
	if real, servers := reachable(data); servers > 0 {
		return real, nil
	}
	return out, nil
}

// reachable returns the lines that make sense in a container, and how many name servers are among them.
func reachable(data []byte) (out []byte, servers int) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			a, err := netip.ParseAddr(fields[1])
			// Link-local IPv6 servers need a zone, which names an interface of the node.
			if err != nil || a.IsLoopback() || a.IsUnspecified() || a.Zone() != "" {
				continue
			}
			servers++
		case "search", "domain", "options":
		default:
			continue
		}
		out = append(append(out, strings.Join(fields, " ")...), '\n')
	}
	return out, servers
}
