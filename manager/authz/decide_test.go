package authz

import (
	"testing"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
)

// TestDecide goes through every combination of rule, certificate and knowledge, and checks what must hold for each.
func TestDecide(t *testing.T) {
	kinds := []api.Caller{api.Caller_CALLER_ANYONE, api.Caller_CALLER_WORKER, api.Caller_CALLER_MANAGER, api.Caller_CALLER_VIEWER}
	roles := []api.Role{api.Role_ROLE_WORKER, api.Role_ROLE_MANAGER}
	changed := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	n := 0
	for set := 1; set < 1<<len(kinds); set++ {
		rule := &api.Access{}
		for i, k := range kinds {
			if set&(1<<i) != 0 {
				rule.Callers = append(rule.Callers, k)
			}
		}
		for _, ahead := range []bool{false, true} {
			rule.MayBeAhead = ahead
			for _, certified := range roles {
				for _, issued := range []time.Time{changed.Add(-time.Hour), changed.Add(time.Hour)} {
					e := evidence{ca.Name{Role: certified}, issued}
					for _, current := range []bool{false, true} {
						checkDecision(t, rule, e, knowledge{current: current})
						for _, recorded := range roles {
							checkDecision(t, rule, e, knowledge{known: true, current: current, record: Record{Role: recorded, ChangedAt: changed}})
							checkDecision(t, rule, e, knowledge{known: true, current: current, record: Record{recorded, changed, true}})
							n++
						}
					}
				}
			}
		}
	}
	t.Logf("%d decisions about known nodes", n)
}

func checkDecision(t *testing.T, rule *api.Access, e evidence, k knowledge) {
	t.Helper()
	kind, v := decide(rule, e, k)
	anyone := allowed(rule, api.Caller_CALLER_ANYONE)
	certified := kindOf(e.name.Role)
	fail := func(why string) {
		t.Helper()
		t.Errorf("rule %v, certificate %v issued %v, %+v: %v %v: %s", rule, e.name.Role, e.issued, k, kind, v, why)
	}
	if k.record.Revoked {
		if kind != api.Caller_CALLER_ANYONE || anyone != (v == allow) || v == catchUp {
			fail("nothing is left to a revoked node but what anyone may")
		}
		return
	}
	switch {
	case k.current && v == catchUp:
		fail("caught up already")
	case v == allow && !allowed(rule, kind):
		fail("allowed against the rule")
	case anyone && v != allow:
		fail("anyone may call this")
	case kind == api.Caller_CALLER_VIEWER:
		fail("no node is a user")
	case kind == api.Caller_CALLER_MANAGER && certified != kind:
		fail("more than the certificate says")
	case v == allow && kind == api.Caller_CALLER_MANAGER && k.known && k.record.Role != e.name.Role && (!rule.GetMayBeAhead() || k.current):
		fail("more than the store says")
	case v == allow && kind == api.Caller_CALLER_MANAGER && k.known && k.record.Role != e.name.Role && !e.issued.After(k.record.ChangedAt):
		fail("an old certificate against newer knowledge")
	case v == allow && !k.known && !anyone && (k.current || !rule.GetMayBeAhead()):
		fail("a node that the store doesn't know")
	case v == refuse && k.known && k.record.Role == e.name.Role && allowed(rule, certified):
		fail("certificate and store say that it may")
	case v == refuse && !k.current && !k.known && allowed(rule, certified):
		fail("refused without asking for current knowledge")
	}
}
