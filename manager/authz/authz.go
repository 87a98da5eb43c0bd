package authz

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
)

const (
	// catchUpTimeout bounds how long a call waits for the store to catch up: a few round trips to the leader.
	catchUpTimeout = 2 * time.Second

	// The texts of refusals (A3).
	strangerText = "a valid node certificate of this swarm is required"
	refusedText  = "permission denied: the caller's role does not allow this, or it is not part of the swarm any more"

	// The text of a call that can be neither allowed nor refused.
	cantTellText = "this manager can't tell at the moment whether the caller is still part of the swarm: try again"
	noUsersText  = "this node can't tell at the moment who may do what, because it is no manager or waits for the others: " +
		"try again, or connect to another manager"

	refusedReason = "NOT_AUTHORIZED"
	errorDomain   = "skep"
)

// Nodes is what the store knows of nodes. Safe for concurrent use.
type Nodes interface {
	// Node returns the record of a node and whether there is one. It never blocks.
	Node(id string) (Record, bool)
	// CatchUp returns once everything that the leader knew at the time of the call is known here.
	CatchUp(ctx context.Context) error
}

// Refusal is a call that was refused.
type Refusal struct {
	Caller Caller
	Method string
}

// Config says whom an Authorizer believes.
type Config struct {
	// ClusterID returns the swarm that this node is in, or "" while it is in none; then no node is let in.
	ClusterID func() string
	// Nodes is nil where there is no store, on workers: there a certificate is believed as long as it lives.
	Nodes Nodes
	// Users is nil where nobody but nodes calls.
	Users Users
	// OnRefusal is told each refusal, or nil. It must not block.
	OnRefusal func(context.Context, Refusal)
}

// Authorizer stands before every handler.
type Authorizer struct {
	cfg   Config
	rules rules
}

// New returns an Authorizer for all methods of package api.
func New(cfg Config) *Authorizer { return &Authorizer{cfg, declaredRules()} }

// ServerOptions returns the interceptors. They come first of all options that have interceptors.
func (a *Authorizer) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(a.unary), grpc.ChainStreamInterceptor(a.stream)}
}

func (a *Authorizer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	caller, err := a.authorize(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(NewContext(ctx, caller), req)
}

func (a *Authorizer) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	caller, err := a.authorize(s.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handler(srv, authorizedStream{s, caller})
}

// authorizedStream is a stream whose context has the caller.
type authorizedStream struct {
	grpc.ServerStream
	caller Caller
}

// Context implements grpc.ServerStream.
func (s authorizedStream) Context() context.Context {
	return NewContext(s.ServerStream.Context(), s.caller)
}

// authorize returns who calls, or the error for the client.
func (a *Authorizer) authorize(ctx context.Context, method string) (Caller, error) {
	caller, e := a.identify(ctx)
	rule := a.rules[method]
	ok := false
	switch {
	case rule == nil: // A1
	case caller.User != "":
		return a.admitUser(ctx, rule, method, caller)
	case e == nil || a.cfg.Nodes == nil:
		ok = allowed(rule, caller.Kind)
	default:
		var err error
		if caller.Kind, ok, err = a.ask(ctx, rule, *e); err != nil {
			return Caller{}, status.Error(codes.Unavailable, cantTellText)
		}
	}
	if !ok {
		return Caller{}, a.refusal(ctx, Refusal{caller, method})
	}
	if rule.GetLeader() && caller.Kind == api.Caller_CALLER_MANAGER {
		if origin, forwarded := originOf(ctx, caller); forwarded {
			return a.admitOrigin(ctx, rule, method, origin)
		}
	}
	return caller, nil
}

// admitOrigin decides once more about a call that another manager forwarded: the leader may know that a user was revoked when
// that manager does not.
func (a *Authorizer) admitOrigin(ctx context.Context, rule *api.Access, method string, origin Caller) (Caller, error) {
	switch {
	case origin.User != "":
		return a.admitUser(ctx, rule, method, origin)
	case !allowed(rule, origin.Kind):
		return Caller{}, a.refusal(ctx, Refusal{origin, method})
	default:
		return origin, nil
	}
}

// ask decides about a node by what the store knows, after catching up if need be.
func (a *Authorizer) ask(ctx context.Context, rule *api.Access, e evidence) (api.Caller, bool, error) {
	k := a.lookUp(e, false)
	kind, v := decide(rule, e, k)
	if v == catchUp {
		ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
		defer cancel()
		if err := a.cfg.Nodes.CatchUp(ctx); err != nil {
			return kind, false, err
		}
		kind, v = decide(rule, e, a.lookUp(e, true))
	}
	return kind, v == allow, nil
}

func (a *Authorizer) lookUp(e evidence, current bool) knowledge {
	record, known := a.cfg.Nodes.Node(e.name.NodeID)
	return knowledge{known: known, record: record, current: current}
}

// identify says who the transport proved the caller to be (A4), with the evidence if it is a node.
func (a *Authorizer) identify(ctx context.Context) (Caller, *evidence) {
	stranger := Caller{Kind: api.Caller_CALLER_ANYONE}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return stranger, nil
	}
	if p.Addr != nil {
		stranger.Address = p.Addr.String()
	}
	switch info := p.AuthInfo.(type) {
	case SocketPeer:
		stranger.Address = fmt.Sprintf("@%d", info.UID)
		if info.Admin {
			stranger.Kind = api.Caller_CALLER_ADMIN
		}
		return stranger, nil
	case UserPeer:
		if !time.Now().Before(info.expires) {
			return stranger, nil
		}
		user := info.caller()
		user.Address = stranger.Address
		return user, nil
	case credentials.TLSInfo:
		e := a.node(info)
		if e == nil {
			return stranger, nil
		}
		return Caller{
			Kind: kindOf(e.name.Role), NodeID: e.name.NodeID, ClusterID: e.name.ClusterID, Address: stranger.Address,
		}, e
	default:
		return stranger, nil
	}
}

// node returns what a verified certificate of this swarm says, or nil. TLS has refused all others already; this is for the
// server that somebody will set up with another configuration, and for connections that outlived their certificate.
func (a *Authorizer) node(info credentials.TLSInfo) *evidence {
	if len(info.State.VerifiedChains) == 0 || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	leaf := info.State.PeerCertificates[0]
	name, err := ca.NameOf(leaf)
	if err != nil || name.ClusterID != a.cfg.ClusterID() || !time.Now().Before(leaf.NotAfter) {
		return nil
	}
	return &evidence{name: name, issued: leaf.NotBefore.Add(ca.Backdate)}
}

// refusal refuses a call with the text that all get alike (A3).
func (a *Authorizer) refusal(ctx context.Context, r Refusal) error {
	if r.Caller.Kind == api.Caller_CALLER_ANYONE && r.Caller.NodeID == "" && r.Caller.User == "" {
		return a.refuse(ctx, r, codes.Unauthenticated, strangerText)
	}
	return a.refuse(ctx, r, codes.PermissionDenied, refusedText)
}

func (a *Authorizer) refuse(ctx context.Context, r Refusal, code codes.Code, text string) error {
	if a.cfg.OnRefusal != nil {
		a.cfg.OnRefusal(ctx, r)
	}
	st, err := status.New(code, text).WithDetails(&errdetails.ErrorInfo{Reason: refusedReason, Domain: errorDomain})
	if err != nil {
		return status.Error(code, text)
	}
	return st.Err()
}

// Refused reports whether err, as a client got it, is a refusal of this package and not the answer of a handler.
func Refused(err error) bool {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain && info.GetReason() == refusedReason {
			return true
		}
	}
	return false
}
