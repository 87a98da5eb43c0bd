package caserver

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store/storetest"
)

// FuzzIssueCertificate is everything that a stranger can say. Whatever it is, only the bearer of a token becomes a node, a node that
// needs approval gets no certificate, and every refusal is one that the stranger may read.
func FuzzIssueCertificate(f *testing.F) {
	founding, err := Found(time.Now(), FoundConfig{Spec: &api.ClusterSpec{}})
	if err != nil {
		f.Fatal(err)
	}
	worker := founding.Cluster.GetJoinTokens().GetWorker()
	_, csr := catest.KeyAndCSR(f)
	for _, tok := range []string{worker, "granted", "waiting", worker[:60] + strings.Repeat("0", 25), "", "SKPTKN-1--"} {
		f.Add(tok, csr, "host", int32(1), true)
	}
	f.Add("granted", csr[:100], "a\x1b[2J", int32(9), false)
	f.Fuzz(func(t *testing.T, tok string, csr []byte, hostname string, availability int32, canWait bool) {
		s := storetest.New(t)
		storetest.Create(t, s, founding.Cluster)
		granted := grant(t, s, founding, &api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: 1})
		waiting := grant(t, s, founding, &api.JoinGrantSpec{Role: api.Role_ROLE_MANAGER, MaxUses: 1, RequireApproval: true})
		switch tok {
		case "granted":
			tok = granted.Reveal()
		case "waiting":
			tok = waiting.Reveal()
		}
		server, err := New(Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx := authz.NewContext(t.Context(), authz.Caller{Kind: api.Caller_CALLER_ANYONE, Address: "192.0.2.1:1"})
		answer, err := server.IssueCertificate(ctx, &api.IssueCertificateRequest{
			Token: tok, Csr: csr, Hostname: hostname, Availability: api.Availability(availability), CanWait: canWait,
		})
		nodes := storetest.List[*api.Node](t, s)
		known := tok == granted.Reveal() || tok == waiting.Reveal() || tok == worker || tok == founding.Cluster.GetJoinTokens().GetManager()
		switch kind := fault.KindOf(err); {
		case err != nil && kind != fault.PermissionDenied && kind != fault.Invalid && kind != fault.Precondition:
			t.Fatalf("a refusal of kind %v: %v", kind, err)
		case (err == nil) != (len(nodes) == 1), err == nil && !known:
			t.Fatalf("%d nodes, %v, by a known token: %v", len(nodes), err, known)
		case err == nil && answer.GetPending() != (tok == waiting.Reveal()), answer.GetPending() && len(answer.GetCertificate()) > 0:
			t.Fatalf("answer %v", answer)
		case err == nil && !answer.GetPending():
			chain, err := ca.ParseBundle(answer.GetCertificate())
			if err != nil {
				t.Fatal(err)
			}
			if name, err := ca.NameOf(chain[0]); err != nil || name.NodeID != nodes[0].GetId() || name.Role != nodes[0].GetRole() {
				t.Fatal(fmt.Errorf("certificate of %v for %v: %w", name, nodes[0], err))
			}
		}
	})
}
