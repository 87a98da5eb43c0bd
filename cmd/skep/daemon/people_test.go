package daemon

import (
	"slices"
	"strings"
	"testing"
)

func TestPeopleFlags(t *testing.T) {
	for name, test := range map[string]struct {
		flags peopleFlags
		hosts []string
		want  string // the error
	}{
		"nothing":              {peopleFlags{}, nil, ""},
		"an address":           {peopleFlags{hosts: []string{"tcp://10.0.0.1"}, verify: true}, []string{"10.0.0.1:2376"}, ""},
		"two, with ports":      {peopleFlags{hosts: []string{"tcp://eth0:1", "tcp://[::1]"}, verify: true}, []string{"eth0:1", "[::1]:2376"}, ""},
		"files":                {peopleFlags{hosts: []string{"tcp://10.0.0.1"}, verify: true, cacert: "a", cert: "b", key: "c"}, []string{"10.0.0.1:2376"}, ""},
		"without TLS":          {peopleFlags{hosts: []string{"tcp://10.0.0.1"}}, nil, "add --tlsverify"},
		"without an address":   {peopleFlags{verify: true}, nil, "need a --host"},
		"files for no address": {peopleFlags{cacert: "a", cert: "b", key: "c"}, nil, "need a --host"},
		"some of the files":    {peopleFlags{hosts: []string{"tcp://10.0.0.1"}, verify: true, cert: "b"}, nil, "go together"},
		"the socket":           {peopleFlags{hosts: []string{"unix:///run/s"}, verify: true}, nil, "want tcp://ADDRESS"},
		"a path":               {peopleFlags{hosts: []string{"tcp://10.0.0.1/x"}, verify: true}, nil, "want tcp://ADDRESS"},
		"no host":              {peopleFlags{hosts: []string{"tcp://"}, verify: true}, nil, "want tcp://ADDRESS"},
	} {
		cfg, err := test.flags.parse(false)
		switch {
		case test.want == "" && (err != nil || !slices.Equal(cfg.Hosts, test.hosts)):
			t.Errorf("%s: %q, %v", name, cfg.Hosts, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestPeopleAddresses_AreThoseThatUsersCanReach(t *testing.T) {
	for name, test := range map[string]struct {
		cfg        peopleConfig
		advertised string
		want       []string
	}{
		"an address":             {peopleConfig{Hosts: []string{"10.0.0.1:2376"}}, "10.0.0.9:2377", []string{"tcp://10.0.0.1:2376"}},
		"all addresses":          {peopleConfig{Hosts: []string{"0.0.0.0:2376"}}, "10.0.0.9:2377", []string{"tcp://10.0.0.9:2376"}},
		"all, of both kinds":     {peopleConfig{Hosts: []string{"[::]:1"}}, "[fd00::1]:2377", []string{"tcp://[fd00::1]:1"}},
		"all, but in no swarm":   {peopleConfig{Hosts: []string{"0.0.0.0:2376"}}, "", nil},
		"another CA's users":     {peopleConfig{Hosts: []string{"10.0.0.1:2376"}, Authorities: "ca.pem"}, "10.0.0.9:2377", nil},
		"nobody over TCP at all": {peopleConfig{}, "10.0.0.9:2377", nil},
	} {
		if got := test.cfg.addresses(test.advertised); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
