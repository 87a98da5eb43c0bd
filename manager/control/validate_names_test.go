package control_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// What a service adds to /etc/hosts and /etc/resolv.conf is stored as it was given.
func TestCreateService_TakesNamesAndAddresses(t *testing.T) {
	s := newSwarm(t)
	hosts := []string{"192.0.2.1 db db.example.org", "2001:db8::1 my_six", "::ffff:192.0.2.2 X-1"}
	dns := &api.DNSConfig{
		Nameservers: []string{"192.0.2.53", "2001:db8::53", "127.0.0.1"}, Search: []string{".", "example.org", "a.test.", "_tcp.b.test"},
		Options: []string{"edns0", "ndots:2", "no-tld-query"},
	}
	created, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(func(s *api.ServiceSpec) {
		s.Task.Container.Hosts, s.Task.Container.Dns = hosts, dns
	})})
	if err != nil {
		t.Fatal(err)
	}
	c := created.GetService().GetSpec().GetTask().GetContainer()
	if diff := cmp.Diff(dns, c.GetDns(), protocmp.Transform()); diff != "" || !slices.Equal(c.GetHosts(), hosts) {
		t.Errorf("stored hosts %q, and DNS (-want +got):\n%s", c.GetHosts(), diff)
	}
}

// Nothing of a service makes another line, or another word, of the files than the one it is meant to be.
func TestCreateService_RefusesWhatIsNoNameOrAddress(t *testing.T) {
	for _, tt := range []struct {
		hosts []string
		dns   *api.DNSConfig
		want  string
	}{
		{hosts: []string{"192.0.2.1 a", "192.0.2.1"}, want: `hosts[1]: invalid host "192.0.2.1": write an IP address and a name`},
		{hosts: []string{"a b"}, want: `hosts[0]: invalid IP address "a"`},
		{hosts: []string{"fe80::1%\n192.0.2.1 a"}, want: "hosts[0]: invalid IP address"},
		{hosts: []string{"192.0.2.1 a b\n192.0.2.2"}, want: `hosts[0]: invalid host name "b\n192.0.2.2"`},
		{hosts: []string{"192.0.2.1\ta"}, want: "hosts[0]: invalid host "},
		{hosts: []string{"192.0.2.1 a\n"}, want: `hosts[0]: invalid host name "a\n"`},
		{hosts: []string{"192.0.2.1 a  b"}, want: `hosts[0]: invalid host name ""`},
		{hosts: []string{"192.0.2.1 a #b"}, want: `invalid host name "#b"`},
		{hosts: []string{"192.0.2.1 a\x00"}, want: `invalid host name "a\x00"`},
		{hosts: []string{"192.0.2.1 -a"}, want: `invalid host name "-a"`},
		{hosts: []string{"192.0.2.1" + strings.Repeat(" a", 256)}, want: "hosts[0]: 521 bytes are too many: at most 512"},
		{hosts: []string{"192.0.2.1 " + strings.Repeat("a", 254)}, want: "hosts[0]: invalid host name"},
		{hosts: make([]string, 257), want: "hosts: 257 hosts are too many: at most 256"},
		{dns: &api.DNSConfig{Nameservers: make([]string, 33)}, want: "dns.nameservers: 33 are too many: at most 32"},
		{dns: &api.DNSConfig{Search: make([]string, 33)}, want: "dns.search: 33 are too many: at most 32"},
		{dns: &api.DNSConfig{Options: make([]string, 33)}, want: "dns.options: 33 are too many: at most 32"},
		{dns: &api.DNSConfig{Nameservers: []string{"192.0.2.1", "dns"}}, want: `dns.nameservers[1]: invalid name server "dns": write an IP address`},
		{dns: &api.DNSConfig{Nameservers: []string{"fe80::1%a\nsearch x"}}, want: "dns.nameservers[0]: invalid name server"},
		{dns: &api.DNSConfig{Nameservers: []string{"192.0.2.1 "}}, want: `dns.nameservers[0]: invalid name server "192.0.2.1 "`},
		{dns: &api.DNSConfig{Search: []string{".", "a\noptions x"}}, want: `dns.search[1]: invalid search domain "a\noptions x"`},
		{dns: &api.DNSConfig{Search: []string{"a b"}}, want: `dns.search[0]: invalid search domain "a b"`},
		{dns: &api.DNSConfig{Search: []string{""}}, want: `dns.search[0]: invalid search domain ""`},
		{dns: &api.DNSConfig{Search: []string{strings.Repeat("a.", 127)}}, want: ""},
		{dns: &api.DNSConfig{Search: []string{strings.Repeat("a.", 127) + "a"}}, want: "dns.search[0]: invalid search domain"},
		{dns: &api.DNSConfig{Options: []string{"ndots:2 x"}}, want: `dns.options[0]: invalid option "ndots:2 x"`},
		{dns: &api.DNSConfig{Options: []string{"edns0\n"}}, want: `dns.options[0]: invalid option "edns0\n"`},
		{dns: &api.DNSConfig{Options: []string{"edns0\x00"}}, want: `dns.options[0]: invalid option "edns0\x00"`},
		{dns: &api.DNSConfig{Options: []string{strings.Repeat("a", 65)}}, want: "dns.options[0]: invalid option"},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, err := newSwarm(t).CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(func(s *api.ServiceSpec) {
				s.Task.Container.Hosts, s.Task.Container.Dns = tt.hosts, tt.dns
			})})
			if tt.want == "" && err == nil {
				return
			}
			wantFault(t, err, fault.Invalid, tt.want)
		})
	}
}
