package authz

import (
	"cmp"
	"context"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/skep-io/skep/api"
)

// Caller is who makes a request, as far as it is proved (A4).
type Caller struct {
	// Kind is CALLER_ANYONE for a stranger. For a node or user it is the lower of the roles that certificate and store say.
	Kind api.Caller
	// NodeID and ClusterID of the node that calls, or empty for strangers and people.
	NodeID, ClusterID string
	// User is the name of the user who calls, or empty for nodes, strangers and whoever is at the unix socket.
	User string
	// Fingerprint of the user's certificate in hex, or empty for an external user.
	Fingerprint string
	// Address that the call came from: host:port, or "@" and the user id of the process for the unix socket.
	Address string
	// Via is the ID of the manager that forwarded the call, or empty.
	Via string
}

// Name says who it is: a node's id, a user's name, or for the unix socket the user id of the process. It is empty for strangers.
func (c Caller) Name() string {
	if uid, local := strings.CutPrefix(c.Address, "@"); local && uid != "" {
		return "uid " + uid
	}
	return cmp.Or(c.NodeID, c.User)
}

// callerKey finds a Caller in a context.
type callerKey struct{}

// FromContext returns the caller of the request that ctx belongs to. Without one, outside of a request, it returns the zero
// Caller, which is of no kind and may do nothing.
func FromContext(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// NewContext returns a context with a caller: for the interceptor, and for tests of handlers.
func NewContext(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// Metadata of forwarded calls.
const (
	originKindKey    = "skep-origin-kind"
	originNodeKey    = "skep-origin-node"
	originAddressKey = "skep-origin-address"
	originUserKey    = "skep-origin-user"
	originProofKey   = "skep-origin-fingerprint"
)

// Origin returns the metadata with which a manager that forwards the call of ctx tells the leader whose call it is.
func Origin(ctx context.Context) metadata.MD {
	c := FromContext(ctx)
	md := metadata.Pairs(originKindKey, c.Kind.String(), originNodeKey, c.NodeID, originAddressKey, c.Address)
	if c.User != "" {
		md.Set(originUserKey, c.User)
		md.Set(originProofKey, c.Fingerprint)
	}
	return md
}

// originOf returns the caller that a manager says it forwards for, or false if it forwards for nobody.
func originOf(ctx context.Context, via Caller) (Caller, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	kind := api.Caller(api.Caller_value[first(md, originKindKey)])
	if kind == api.Caller_CALLER_UNSPECIFIED {
		return Caller{}, false
	}
	c := Caller{
		Kind: kind, NodeID: first(md, originNodeKey), Address: first(md, originAddressKey), Via: via.NodeID,
		User: first(md, originUserKey), Fingerprint: first(md, originProofKey),
	}
	if c.NodeID != "" {
		c.ClusterID = via.ClusterID
	}
	return c, true
}

func first(md metadata.MD, key string) string {
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}
