package ca_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/ca/token"
)

func TestClaimGrant(t *testing.T) {
	use := func(key string, denied bool) *api.JoinGrantUse {
		return &api.JoinGrantUse{KeyFingerprint: key, NodeId: "node-" + key, Denied: denied}
	}
	used := func(uses ...*api.JoinGrantUse) *api.JoinGrant { return &api.JoinGrant{Uses: uses} }
	from := func(cidr string) *api.JoinGrantSpec { return &api.JoinGrantSpec{From: cidr} }
	for name, c := range map[string]struct {
		spec    *api.JoinGrantSpec
		grant   *api.JoinGrant
		late    time.Duration
		address string
		old     bool // a joiner that can't wait
		node    string
		want    error
	}{
		"the first":                       {node: "fresh"},
		"the last moment":                 {late: time.Hour - 1, node: "fresh"},
		"too late":                        {late: time.Hour, want: ca.ErrGrantExpired},
		"used up":                         {grant: used(use("b", false)), want: ca.ErrGrantUsed},
		"used by somebody who was denied": {grant: used(use("b", true)), node: "fresh"},
		"the same key again":              {grant: used(use("a", false)), node: "node-a"},
		"the same key again, late":        {grant: used(use("a", false)), late: 24 * time.Hour, node: "node-a"},
		"denied":                          {grant: used(use("a", true)), want: ca.ErrDenied},
		"from the right network":          {spec: from("192.0.2.0/24"), address: "192.0.2.9", node: "fresh"},
		"mapped into IPv6":                {spec: from("192.0.2.0/24"), address: "::ffff:192.0.2.9", node: "fresh"},
		"from another network":            {spec: from("192.0.2.0/24"), address: "198.51.100.1", want: ca.ErrGrantAddress},
		"from IPv6":                       {spec: from("2001:db8::/32"), address: "2001:db8::7", node: "fresh"},
		"from nowhere":                    {spec: from("0.0.0.0/0"), want: ca.ErrGrantAddress},
		"from what can't be read":         {spec: from("everywhere"), address: "192.0.2.9", want: ca.ErrGrantAddress},
		"the same key from elsewhere": {
			spec: from("192.0.2.0/24"), grant: used(use("a", false)), address: "198.51.100.1", want: ca.ErrGrantAddress,
		},
		"an old program that must wait": {spec: &api.JoinGrantSpec{RequireApproval: true}, old: true, want: ca.ErrCannotWait},
	} {
		t.Run(name, func(t *testing.T) {
			_, g := catest.NewGrant(token.Digest{}, &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: 1})
			proto.Merge(g.Spec, c.spec)
			g.Uses = c.grant.GetUses()
			before := proto.CloneOf(g)
			now := g.GetExpiresAt().AsTime().Add(c.late - time.Hour)
			n := ca.NewNode{KeyFingerprint: "a", CanWait: !c.old}
			if c.address != "" {
				n.Address = netip.MustParseAddr(c.address)
			}
			claim, err := ca.ClaimGrant(g, now, n, "fresh")
			if !errors.Is(err, c.want) || claim.NodeID != c.node || (claim.Grant != nil) != (c.node == "fresh") {
				t.Errorf("node %q, grant %v, %v; want %q, %v", claim.NodeID, claim.Grant, err, c.node, c.want)
			}
			if !proto.Equal(g, before) {
				t.Error("the grant that was given has changed")
			}
			if claim.Grant == nil {
				return
			}
			entered := claim.Grant.GetUses()[len(claim.Grant.GetUses())-1]
			if entered.GetNodeId() != "fresh" || entered.GetKeyFingerprint() != "a" || entered.GetAddress() != c.address || !entered.GetUsedAt().AsTime().Equal(now) {
				t.Errorf("entered %v", entered)
			}
		})
	}
}

// opensslKey has the fingerprint of openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64.
const (
	opensslKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAENws7CJpeO8erac3I5DahugkeM3un
pKBvEgv83LHwVKoUCYRD/jLJckb1Tu3EYYVOTdimNUlaKfVVmSRQnWg9hg==
-----END PUBLIC KEY-----`
	opensslFingerprint = "SHA256:qrsR9NVqo5nHoH8IHK2ZSZ6t77M/4S7uphZF7SfJTg8"
)

func TestFingerprint_IsWhatOpenSSLSays(t *testing.T) {
	block, _ := pem.Decode([]byte(opensslKey))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ca.Fingerprint(key.(*ecdsa.PublicKey)); err != nil || got != opensslFingerprint {
		t.Errorf("%s, %v; want %s", got, err, opensslFingerprint)
	}
}
