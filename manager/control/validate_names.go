package control

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/skep-io/skep/api"
)

// Limits of what a service adds to /etc/hosts and says of /etc/resolv.conf: both are read as a whole by each program that looks up a name.
const (
	maxHosts     = 256
	maxHostsLine = 512 // bytes: musl reads no more
	maxResolving = 32  // of name servers, search domains and options each
	maxDomain    = 253 // bytes: the DNS's limit
	maxDNSOption = 64
	noSearch     = "." // takes the node's search domains away
)

var (
	// domainPattern is what a name in /etc/hosts or a search domain is made of. Underscores are no part of host names in the DNS, but of
	// names that people give.
	domainPattern = regexp.MustCompile(`^[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?(?:\.[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*$`)
	// optionPattern is that of resolv.conf(5): edns0, ndots:2, no-tld-query.
	optionPattern = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]*(?::[0-9]+)?$`)
)

func validDomain(name string) bool { return len(name) <= maxDomain && domainPattern.MatchString(name) }

// validAddress reports whether text is an IP address and nothing else: a zone could be any text.
func validAddress(text string) bool {
	address, err := netip.ParseAddr(text)
	return err == nil && address.Zone() == ""
}

// hosts checks lines of /etc/hosts: that each is one line, of an address and names.
func (p *problems) hosts(at string, lines []string) {
	if len(lines) > maxHosts {
		p.add(at, "%d hosts are too many: at most %d are allowed", len(lines), maxHosts)
		return
	}
	for i, line := range lines {
		field := fmt.Sprintf("%s[%d]", at, i)
		words := strings.Split(line, " ")
		switch {
		case len(line) > maxHostsLine:
			p.add(field, "%d bytes are too many: at most %d are allowed", len(line), maxHostsLine)
			continue
		case len(words) < 2:
			p.add(field, "invalid host %q: write an IP address and a name", clip(line))
			continue
		case !validAddress(words[0]):
			p.add(field, "invalid IP address %q", clip(words[0]))
		}
		for _, name := range words[1:] {
			if !validDomain(name) {
				p.add(field, "invalid host name %q: use letters, digits, -, _ and ., at most %d", clip(name), maxDomain)
			}
		}
	}
}

// dns checks what goes into /etc/resolv.conf: that each is one word there.
func (p *problems) dns(at string, c *api.DNSConfig) {
	for _, list := range []struct {
		name, what, use string
		values          []string
		valid           func(string) bool
	}{
		{"nameservers", "name server", "an IP address", c.GetNameservers(), validAddress},
		{"search", "search domain", "a domain such as example.org, or . for none", c.GetSearch(), func(domain string) bool {
			return domain == noSearch || validDomain(strings.TrimSuffix(domain, "."))
		}},
		{"options", "option", "one of resolv.conf(5), such as ndots:2", c.GetOptions(), func(option string) bool {
			return len(option) <= maxDNSOption && optionPattern.MatchString(option)
		}},
	} {
		if len(list.values) > maxResolving {
			p.add(at+"."+list.name, "%d are too many: at most %d are allowed", len(list.values), maxResolving)
			continue
		}
		for i, value := range list.values {
			if !list.valid(value) {
				p.add(fmt.Sprintf("%s.%s[%d]", at, list.name, i), "invalid %s %q: write %s", list.what, clip(value), list.use)
			}
		}
	}
}
