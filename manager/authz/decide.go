package authz

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
)

// Record is what the store knows of a node.
type Record struct {
	Role api.Role
	// ChangedAt is when the record changed last, by the clock of the leader of that time.
	ChangedAt time.Time
	// Revoked says that nothing counts any more that its certificate says.
	Revoked bool
}

// evidence is what a node's certificate says, verified by TLS.
type evidence struct {
	name   ca.Name
	issued time.Time
}

// knowledge is what the store says about the node of an evidence.
type knowledge struct {
	known  bool // whether there is a record
	record Record
	// current is true after the store caught up with the leader.
	current bool
}

// verdict is what to do with a call.
type verdict int

const (
	refuse verdict = iota
	allow
	// catchUp means to ask again with current knowledge.
	catchUp
)

// decide is the core for nodes. It returns the kind of caller that the node is, CALLER_ANYONE for a removed one, and what to
// do with its call. Rule is never nil.
func decide(rule *api.Access, e evidence, k knowledge) (api.Caller, verdict) {
	certified := kindOf(e.name.Role)
	behind := !k.current && (!k.known || e.issued.After(k.record.ChangedAt))
	switch {
	case k.known && k.record.Revoked:
		return judge(rule, api.Caller_CALLER_ANYONE)
	case k.known && k.record.Role == e.name.Role:
		return judge(rule, certified)
	case !k.known && allowed(rule, api.Caller_CALLER_ANYONE):
		return api.Caller_CALLER_ANYONE, allow // also one that was removed, to join again
	case behind && rule.GetMayBeAhead():
		return judge(rule, certified)
	case k.known && allowed(rule, api.Caller_CALLER_WORKER):
		return api.Caller_CALLER_WORKER, allow // which every node is at least
	case behind && (allowed(rule, certified) || allowed(rule, api.Caller_CALLER_WORKER)):
		return certified, catchUp
	case k.known:
		return judge(rule, api.Caller_CALLER_WORKER)
	default:
		return judge(rule, api.Caller_CALLER_ANYONE)
	}
}

func judge(rule *api.Access, kind api.Caller) (api.Caller, verdict) {
	if allowed(rule, kind) {
		return kind, allow
	}
	return kind, refuse
}

// allowed reports whether callers of a kind may call. What anyone may call, everybody may.
func allowed(rule *api.Access, kind api.Caller) bool {
	return slices.Contains(rule.GetCallers(), kind) || slices.Contains(rule.GetCallers(), api.Caller_CALLER_ANYONE)
}

func kindOf(r api.Role) api.Caller {
	switch r {
	case api.Role_ROLE_MANAGER:
		return api.Caller_CALLER_MANAGER
	case api.Role_ROLE_WORKER:
		return api.Caller_CALLER_WORKER
	default:
		return api.Caller_CALLER_ANYONE
	}
}
