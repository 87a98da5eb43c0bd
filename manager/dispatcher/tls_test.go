package dispatcher_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/storetest"
)

// What a node says of its TLS reaches the store through every manager, and a program that does not say it is one that does not know it.
func TestSession_SaysWhatTheNodeTrusts(t *testing.T) {
	for _, via := range []string{"m1", "m2"} {
		t.Run("through "+via, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "m1", "m2")
				storetest.Create(t, c.store, node("n1"))
				a := c.connect("n1", via).mustRegister()
				stored := func() *api.NodeTLS {
					synctest.Wait()
					return storetest.Get[*api.Node](t, c.store, "n1").GetTls()
				}
				if got := stored(); got != nil {
					t.Errorf("an older program: %v", got)
				}
				said := &api.NodeTLS{IssuerKeyDigest: []byte("key"), TrustedRootDigests: [][]byte{[]byte("root")}}
				say := func(tls *api.NodeTLS) error {
					_, err := a.client.UpdateDescription(a.ctx(), &api.UpdateDescriptionRequest{SessionId: a.sessionID, Tls: tls})
					return err
				}
				if err := say(said); err != nil {
					t.Fatal(err)
				}
				if got := stored(); !proto.Equal(got, said) {
					t.Errorf("got %v", got)
				}
				if got := storetest.Get[*api.Node](t, c.store, "n1").GetDescription().GetHostname(); got != "host-n1" {
					t.Errorf("the description went: %q", got)
				}
				wantCode(t, "a digest that is too long", say(&api.NodeTLS{IssuerKeyDigest: make([]byte, 33)}), codes.InvalidArgument)
				wantCode(t, "too many digests", say(&api.NodeTLS{TrustedRootDigests: slices.Repeat([][]byte{{1}}, 9)}), codes.InvalidArgument)
				wantCode(t, "too many issuers of tasks", say(&api.NodeTLS{WorkloadIssuerKeyDigests: slices.Repeat([][]byte{{1}}, 9)}), codes.InvalidArgument)
				a.mustRegister()
				if got := stored(); got != nil {
					t.Errorf("after a registration by an older program: %v", got)
				}
			})
		})
	}
}

func TestSession_TellsOfARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		storetest.Create(t, c.store, node("n1"))
		a := c.connect("n1", "m1").mustRegister()
		<-a.messages
		change(t, c.store, "c", func(c *api.Cluster) {
			c.RootCa.Rotation = &api.RootRotation{Id: "r", Certificate: []byte(" and next"), Key: []byte("secret")}
		})
		if got := (<-a.messages).GetRootCertificate(); string(got) != "root and next" {
			t.Errorf("got roots %q", got)
		}
		wish := &api.RenewalRequest{RotationId: "r", IssuerKeyDigest: []byte("key"), AskedAt: timestamppb.Now()}
		change(t, c.store, "n1", func(n *api.Node) { n.Renewal = wish })
		if got := (<-a.messages).GetNode().GetRenewal(); !proto.Equal(got, wish) {
			t.Errorf("got %v", got)
		}
	})
}
