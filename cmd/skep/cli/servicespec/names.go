package servicespec

import (
	"slices"

	"github.com/spf13/pflag"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
)

// nameLists are what create sets and update adds of how a container finds addresses.
type nameLists struct {
	hosts                        flagvalue.Hosts
	nameservers, search, options flagvalue.List
}

// nameRemovals are what update takes away of it.
type nameRemovals struct {
	hosts                        flagvalue.HostNames
	nameservers, search, options flagvalue.List
}

func (l *nameLists) registerCreate(set *pflag.FlagSet) {
	set.Var(&l.nameservers, "dns", "Set custom DNS servers")
	set.Var(&l.options, "dns-option", "Set DNS options")
	set.Var(&l.search, "dns-search", "Set custom DNS search domains")
	set.Var(&l.hosts, "host", "Set one or more custom host-to-IP mappings (host:ip)")
}

func (l *nameLists) registerUpdate(set *pflag.FlagSet, r *nameRemovals) {
	set.Var(&l.nameservers, "dns-add", "Add or update a custom DNS server")
	set.Var(&r.nameservers, "dns-rm", "Remove a custom DNS server")
	set.Var(&l.options, "dns-option-add", "Add or update a DNS option")
	set.Var(&r.options, "dns-option-rm", "Remove a DNS option")
	set.Var(&l.search, "dns-search-add", "Add or update a custom DNS search domain")
	set.Var(&r.search, "dns-search-rm", "Remove a DNS search domain")
	set.Var(&l.hosts, "host-add", `Add a custom host-to-IP mapping ("host:ip")`)
	set.Var(&r.hosts, "host-rm", `Remove a custom host-to-IP mapping ("host:ip")`)
}

// apply removes and then adds, so that a name can get another address. The order is kept: what comes first is asked first.
func (l *nameLists) apply(c *api.ContainerSpec, r nameRemovals) {
	for _, name := range r.hosts {
		c.Hosts = name.OutOf(c.Hosts)
	}
	c.Hosts = mergeTexts(c.Hosts, l.hosts, nil)
	dns := &api.DNSConfig{
		Nameservers: mergeTexts(c.GetDns().GetNameservers(), l.nameservers, r.nameservers),
		Search:      mergeTexts(c.GetDns().GetSearch(), l.search, r.search),
		Options:     mergeTexts(c.GetDns().GetOptions(), l.options, r.options),
	}
	if c.Dns = nil; len(dns.Nameservers)+len(dns.Search)+len(dns.Options) > 0 {
		c.Dns = dns
	}
}

// mergeTexts returns present without removed and with added, each once.
func mergeTexts(present, added, removed []string) []string {
	kept := slices.DeleteFunc(present, func(text string) bool { return slices.Contains(removed, text) })
	return merge(kept, added, func(text string) string { return text })
}

// checks are errors, or nil, for one thing that is both added and removed. A host may be: by its name alone, it gets another address.
func (l *nameLists) checks(r nameRemovals) []error {
	return []error{
		disjoint("dns", l.nameservers, r.nameservers),
		disjoint("dns-option", l.options, r.options),
		disjoint("dns-search", l.search, r.search),
	}
}

// missing returns a sentence for each thing to remove that the container does not have.
func (r nameRemovals) missing(c *api.ContainerSpec) []string {
	var absent []string
	for _, name := range r.hosts {
		if !slices.ContainsFunc(c.GetHosts(), name.In) {
			absent = append(absent, name.String())
		}
	}
	return slices.Concat(
		missing("host", nil, absent),
		missing("DNS server", c.GetDns().GetNameservers(), r.nameservers),
		missing("DNS option", c.GetDns().GetOptions(), r.options),
		missing("DNS search domain", c.GetDns().GetSearch(), r.search),
	)
}
