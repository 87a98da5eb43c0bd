package network

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/skep-io/skep/api"
)

func addresses(t *testing.T, p *pool, n int) []string {
	t.Helper()
	var out []string
	for range n {
		a, ok := p.take()
		if !ok {
			out = append(out, "none")
			continue
		}
		out = append(out, a.String())
	}
	return out
}

func TestPool_HandsOutEachAddressOnceAndReusesLate(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.1.2.9/29"))
	if got := p.gateway().String(); got != "10.1.2.9" {
		t.Errorf("gateway %s", got)
	}
	want := []string{"10.1.2.10", "10.1.2.11", "10.1.2.12"}
	if diff := cmp.Diff(want, addresses(t, p, 3)); diff != "" {
		t.Error(diff)
	}
	p.give(netip.MustParseAddr("10.1.2.10"))
	want = []string{"10.1.2.13", "10.1.2.14", "10.1.2.10", "none", "none"}
	if diff := cmp.Diff(want, addresses(t, p, 5)); diff != "" {
		t.Errorf("I12: %s", diff)
	}
	p.give(netip.MustParseAddr("10.1.2.10"))
	if diff := cmp.Diff([]string{"10.1.2.10", "none"}, addresses(t, p, 2)); diff != "" {
		t.Errorf("the last one again: %s", diff)
	}
}

func TestPool_HoldsWhatContainersHave(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.1.2.0/29"))
	for address, want := range map[string]bool{"10.1.2.3": true, "10.1.2.1": false, "10.1.2.0": false, "10.1.2.7": false, "10.9.9.9": false} {
		if got := p.hold(netip.MustParseAddr(address)); got != want {
			t.Errorf("hold %s: %v", address, got)
		}
	}
	if diff := cmp.Diff([]string{"10.1.2.2", "10.1.2.4", "10.1.2.5", "10.1.2.6", "none"}, addresses(t, p, 5)); diff != "" {
		t.Errorf("I12: %s", diff)
	}
}

func TestPortsOf_ChecksAndFillsIn(t *testing.T) {
	tests := []struct {
		name  string
		in    []*api.PortConfig
		want  []port
		error string
	}{
		{"defaults", []*api.PortConfig{{TargetPort: 80}}, []port{{"tcp", 80, 80}}, ""},
		{"udp beside tcp", []*api.PortConfig{
			{TargetPort: 53, PublishedPort: 53}, {TargetPort: 53, PublishedPort: 53, Protocol: api.Protocol_PROTOCOL_UDP},
		}, []port{{"tcp", 53, 53}, {"udp", 53, 53}}, ""},
		{"twice", []*api.PortConfig{{TargetPort: 80}, {TargetPort: 81, PublishedPort: 80}}, nil, "published twice"},
		{"no target", []*api.PortConfig{{PublishedPort: 80}}, nil, "within 1 to 65535"},
		{"too high", []*api.PortConfig{{TargetPort: 80, PublishedPort: 65536}}, nil, "within 1 to 65535"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := portsOf(test.in)
			if (err == nil) != (test.error == "") || err != nil && !strings.Contains(err.Error(), test.error) {
				t.Fatalf("error %v, want %q", err, test.error)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLeases_SurviveARestartButNotDamage(t *testing.T) {
	dir := t.TempDir()
	want := lease{Version: 1, Address: netip.MustParseAddr("10.1.2.3"), Ports: []port{{"tcp", 8080, 80}}}
	if err := writeLease(dir, "t1", want); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "t2.json"), nil, 0o600); err != nil { // as after a power cut
		t.Fatal(err)
	}
	for range 2 {
		got, err := readLeases(dir)
		if diff := cmp.Diff(map[string]lease{"t1": want}, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" || err != nil {
			t.Errorf("%s, %v", diff, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "t2.json")); err == nil {
		t.Error("the damaged lease is left")
	}
}

func TestVethName_FitsTheKernel(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []string{"", "t1", "t2", strings.Repeat("x", 64)} {
		name := vethName(id)
		if len(name) >= ifNameLen || seen[name] || !strings.HasPrefix(name, vethPrefix) {
			t.Errorf("name %q of %q", name, id)
		}
		seen[name] = true
	}
}

func TestNew_RefusesUnusableConfigurations(t *testing.T) {
	for name, cfg := range map[string]Config{
		"IPv6":        {Subnet: netip.MustParsePrefix("fd00::/64")},
		"too small":   {Subnet: netip.MustParsePrefix("10.0.0.0/30")},
		"too large":   {Subnet: netip.MustParsePrefix("10.0.0.0/8")},
		"long bridge": {Bridge: "sixteen-bytes-xx"},
	} {
		cfg.Dir = t.TempDir()
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParseLease(f *testing.F) {
	f.Add([]byte(`{"version":1,"address":"172.31.240.2","ports":[{"protocol":"tcp","published":8080,"target":80}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseLease(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseLease(again)
		if diff := cmp.Diff(l, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("round trip: %s, %v", diff, err)
		}
	})
}
