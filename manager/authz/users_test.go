package authz

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/store/storetest"
)

// fakeUsers knows users by name, and after CatchUp also those of later.
type fakeUsers struct {
	known, later map[string]UserRecord
	err          error
	asked        int
}

func (u *fakeUsers) User(name string) (UserRecord, bool) {
	r, ok := u.known[name]
	return r, ok
}

func (u *fakeUsers) CatchUp(context.Context) error {
	u.asked++
	for name, r := range u.later {
		u.known[name] = r
	}
	return u.err
}

// withUsers returns a swarm of one manager that knows alice, an operator, and bob, who was revoked.
func withUsers(t *testing.T) (*swarm, *fakeUsers) {
	t.Helper()
	s := newSwarm(t, api.Role_ROLE_MANAGER)
	s.nodes.known, s.nodes.record = true, Record{Role: api.Role_ROLE_MANAGER, ChangedAt: time.Now()}
	u := &fakeUsers{known: map[string]UserRecord{
		"alice": {Role: api.UserRole_USER_ROLE_OPERATOR, Fingerprint: "aa"},
		"bob":   {Role: api.UserRole_USER_ROLE_ADMIN, Fingerprint: "bb", Revoked: true},
	}, later: map[string]UserRecord{}}
	s.auth.cfg.Users = u
	return s, u
}

// peerOf is a user who has shown a certificate.
func peerOf(name, fingerprint string, most api.Caller) UserPeer {
	return UserPeer{Name: name, Fingerprint: fingerprint, Most: most, expires: time.Now().Add(time.Hour)}
}

func TestUsers_AreAdmittedByTheirRecord(t *testing.T) {
	s, u := withUsers(t)
	u.later["carol"] = UserRecord{Role: api.UserRole_USER_ROLE_VIEWER, Fingerprint: "cc"}
	const look, change = api.Control_ListServices_FullMethodName, api.Control_CreateService_FullMethodName
	for what, test := range map[string]struct {
		peer   UserPeer
		method string
		want   codes.Code
	}{
		"an operator changes":                   {peerOf("alice", "aa", api.Caller_CALLER_OPERATOR), change, codes.OK},
		"an operator rotates a token":           {peerOf("alice", "aa", api.Caller_CALLER_OPERATOR), api.Control_GetJoinToken_FullMethodName, codes.PermissionDenied},
		"a certificate says more":               {peerOf("alice", "aa", api.Caller_CALLER_ADMIN), api.Control_GetJoinToken_FullMethodName, codes.PermissionDenied},
		"a certificate says less":               {peerOf("alice", "aa", api.Caller_CALLER_VIEWER), change, codes.PermissionDenied},
		"another certificate":                   {peerOf("alice", "a0", api.Caller_CALLER_OPERATOR), look, codes.PermissionDenied},
		"another CA's certificate":              {peerOf("alice", "", api.Caller_CALLER_ADMIN), look, codes.PermissionDenied},
		"a revoked admin":                       {peerOf("bob", "bb", api.Caller_CALLER_ADMIN), look, codes.PermissionDenied},
		"nobody of that name":                   {peerOf("dave", "dd", api.Caller_CALLER_ADMIN), look, codes.PermissionDenied},
		"one whom this manager has to hear of":  {peerOf("carol", "cc", api.Caller_CALLER_VIEWER), look, codes.OK},
		"one whose certificate ended meanwhile": {UserPeer{Name: "alice", Fingerprint: "aa", Most: api.Caller_CALLER_OPERATOR}, look, codes.Unauthenticated},
	} {
		_, err := s.callFrom(t.Context(), test.peer, test.method)
		if status.Code(err) != test.want || (err != nil) != Refused(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.callFrom(t.Context(), peerOf("alice", "aa", api.Caller_CALLER_OPERATOR), look); err != nil {
		t.Fatal(err)
	}
	asked := u.asked
	got, err := s.callFrom(t.Context(), peerOf("alice", "aa", api.Caller_CALLER_ADMIN), look)
	want := Caller{Kind: api.Caller_CALLER_OPERATOR, User: "alice", Fingerprint: "aa", Address: "192.0.2.7:4711"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil || u.asked != asked {
		t.Errorf("%v, asked %d times\n%s", err, u.asked-asked, diff)
	}
}

func TestUsers_CannotBeToldWithoutAStore(t *testing.T) {
	s, u := withUsers(t)
	u.err = errors.New("no leader")
	dave := peerOf("dave", "dd", api.Caller_CALLER_ADMIN)
	if _, err := s.callFrom(t.Context(), dave, api.Control_ListServices_FullMethodName); status.Code(err) != codes.Unavailable || Refused(err) {
		t.Errorf("no leader: %v", err)
	}
	s.auth.cfg.Users = nil
	if _, err := s.callFrom(t.Context(), dave, api.Control_ListServices_FullMethodName); status.Code(err) != codes.Unavailable {
		t.Errorf("no store: %v", err)
	}
}

// A refused user reads who that is, what is missing, and what to do next.
func TestUsers_ReadWhyTheyAreRefused(t *testing.T) {
	s, u := withUsers(t)
	u.known["vic"] = UserRecord{Role: api.UserRole_USER_ROLE_VIEWER, Fingerprint: "11"}
	for _, test := range []struct {
		peer   UserPeer
		method string
		want   []string
	}{
		{
			peerOf("vic", "11", api.Caller_CALLER_VIEWER), api.Control_CreateService_FullMethodName,
			[]string{"user vic has the role viewer", "needs the role operator or admin", "skep user create vic --role operator"},
		},
		{
			peerOf("vic", "11", api.Caller_CALLER_VIEWER), api.Control_CreateUser_FullMethodName,
			[]string{"needs the role admin:", "skep user create vic --role admin"},
		},
		{peerOf("vic", "11", api.Caller_CALLER_VIEWER), api.Raft_Send_FullMethodName, []string{"nodes of the swarm only"}},
		{peerOf("bob", "bb", api.Caller_CALLER_ADMIN), api.Control_ListNodes_FullMethodName, []string{"user bob was revoked", "skep user create bob"}},
		{peerOf("eve", "ee", api.Caller_CALLER_ADMIN), api.Control_ListNodes_FullMethodName, []string{"no user eve with this certificate"}},
	} {
		_, err := s.callFrom(t.Context(), test.peer, test.method)
		for _, want := range test.want {
			if !strings.Contains(status.Convert(err).Message(), want) {
				t.Errorf("%s calls %s: %v, want %q", test.peer.Name, test.method, err, want)
			}
		}
	}
	last := s.seen[len(s.seen)-1]
	if len(s.seen) != 5 || last.Caller.User != "eve" || last.Method != api.Control_ListNodes_FullMethodName {
		t.Errorf("told %+v", s.seen)
	}
}

// The leader sees who called another manager, and decides by what it knows itself.
func TestUsers_AreForwardedFaithfully(t *testing.T) {
	s, _ := withUsers(t)
	forward := func(c Caller, method string) (Caller, error) {
		return s.call(metadata.NewIncomingContext(t.Context(), Origin(NewContext(t.Context(), c))), method)
	}
	alice := Caller{Kind: api.Caller_CALLER_OPERATOR, User: "alice", Fingerprint: "aa", Address: "192.0.2.9:1"}
	got, err := forward(alice, api.Control_CreateService_FullMethodName)
	want := alice
	want.Via = s.creds.Name().NodeID
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	external := Caller{Kind: api.Caller_CALLER_ADMIN, User: "alice", Address: "192.0.2.9:1"}
	if _, err := forward(external, api.Control_CreateService_FullMethodName); !Refused(err) {
		t.Errorf("without the certificate's fingerprint: %v", err)
	}
	bob := Caller{Kind: api.Caller_CALLER_ADMIN, User: "bob", Fingerprint: "bb"}
	if _, err := forward(bob, api.Control_CreateService_FullMethodName); !Refused(err) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("revoked, and the other manager does not know: %v", err)
	}
	if _, err := forward(Caller{Kind: api.Caller_CALLER_VIEWER}, api.Control_CreateService_FullMethodName); !Refused(err) {
		t.Errorf("a viewer: %v", err)
	}
	w := newSwarm(t, api.Role_ROLE_WORKER)
	w.auth.cfg.Users = s.auth.cfg.Users
	w.nodes.known, w.nodes.record = true, Record{Role: api.Role_ROLE_WORKER, ChangedAt: time.Now()}
	ctx := metadata.NewIncomingContext(t.Context(), Origin(NewContext(t.Context(), alice)))
	if _, err := w.call(ctx, api.Control_CreateService_FullMethodName); !Refused(err) {
		t.Errorf("forwarded by a worker: %v", err)
	}
	ctx = metadata.NewIncomingContext(t.Context(), Origin(NewContext(t.Context(), Caller{Kind: api.Caller_CALLER_ADMIN})))
	peer := peerOf("alice", "aa", api.Caller_CALLER_OPERATOR)
	if got, err := s.callFrom(ctx, peer, api.Control_CreateService_FullMethodName); err != nil || got.Kind != api.Caller_CALLER_OPERATOR {
		t.Errorf("a user's claim was believed: %+v, %v", got, err)
	}
}

// What a viewer may, an operator may, and what an operator may, an admin may.
func TestRules_GiveNoRoleLessThanALowerOne(t *testing.T) {
	for method, rule := range declaredRules() {
		may := slices.Collect(func(yield func(bool) bool) {
			for _, kind := range userKinds() {
				if !yield(allowed(rule, kind)) {
					return
				}
			}
		})
		if may[0] && !may[1] || may[1] && !may[2] {
			t.Errorf("%s: viewer %v, operator %v, admin %v", method, may[0], may[1], may[2])
		}
	}
}

// What a viewer gets has no place for a secret, but for the cluster, whose secrets the handler takes out (C1 of package control).
func TestRules_GiveViewersNoSecrets(t *testing.T) {
	looked := 0
	for method, rule := range declaredRules() {
		if !allowed(rule, api.Caller_CALLER_VIEWER) || allowed(rule, api.Caller_CALLER_ANYONE) || method == api.Control_GetCluster_FullMethodName {
			continue
		}
		service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
		if err != nil {
			t.Fatal(err)
		}
		looked++
		if field := secretIn(d.(protoreflect.MethodDescriptor).Output(), map[protoreflect.FullName]bool{}); field != "" {
			t.Errorf("%s answers viewers with %s", method, field)
		}
	}
	if looked < 8 {
		t.Errorf("viewers may call only %d methods", looked)
	}
}

// secretIn returns a field marked debug_redact in a message or those inside, or "".
func secretIn(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) protoreflect.FullName {
	if seen[m.FullName()] {
		return ""
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		field := m.Fields().Get(i)
		if options, _ := field.Options().(*descriptorpb.FieldOptions); options.GetDebugRedact() {
			return field.FullName()
		}
		if field.Message() != nil {
			if found := secretIn(field.Message(), seen); found != "" {
				return found
			}
		}
	}
	return ""
}

func TestUsers_OfAStore(t *testing.T) {
	s := storetest.New(t)
	users := NewUsers(s)
	if _, known := users.User("alice"); known {
		t.Error("knows a user that isn't there")
	}
	storetest.Create(t, s, &api.User{
		Id:          catest.NewID(),
		Spec:        &api.UserSpec{Annotations: &api.Annotations{Name: "alice"}, Role: api.UserRole_USER_ROLE_VIEWER},
		Fingerprint: []byte{0xab}, RevokedAt: timestamppb.Now(),
	})
	got, known := users.User("alice")
	if want := (UserRecord{Role: api.UserRole_USER_ROLE_VIEWER, Fingerprint: "ab", Revoked: true}); !known || got != want {
		t.Errorf("%v %+v", known, got)
	}
	if err := users.CatchUp(t.Context()); err != nil {
		t.Error(err)
	}
}

// connect lets a user in by p, and returns the user's end of the connection.
func connect(t *testing.T, p *People, root *ca.Root, manager *ca.Identity, name string) (client *tls.Conn, fingerprint string) {
	t.Helper()
	cert := catest.UserCertificate(t, root, ca.UserName{ClusterID: manager.ClusterID(), User: name, Role: api.UserRole_USER_ROLE_ADMIN}, 0)
	creds := p.Credentials(ca.PeopleCredentials(ca.PeopleTLS(func() *ca.Identity { return manager })), false)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root.Certificate())
	done := make(chan error, 1)
	go func() {
		raw, err := listener.Accept()
		if err == nil {
			_, _, err = creds.ServerHandshake(raw)
		}
		done <- errors.Join(err, listener.Close())
	}()
	client, err = tls.Dial("tcp", listener.Addr().String(), &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: ca.OUManager, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"},
	})
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client, hex.EncodeToString(ca.CertificateDigest(cert.Leaf))
}

func TestPeople_ShowOutWhoWasRevokedAndNobodyElse(t *testing.T) {
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	name := ca.Name{ClusterID: catest.NewID(), NodeID: catest.NewID(), Role: api.Role_ROLE_MANAGER}
	manager := ca.NewIdentity(catest.Credentials(t, root, name, 0))
	p := NewPeople()
	alice, proofOfAlice := connect(t, p, root, manager, "alice")
	bob, proofOfBob := connect(t, p, root, manager, "bob")
	carol, _ := connect(t, p, root, manager, "carol")
	users := &fakeUsers{known: map[string]UserRecord{
		"alice": {Role: api.UserRole_USER_ROLE_ADMIN, Fingerprint: proofOfAlice},
		"bob":   {Role: api.UserRole_USER_ROLE_ADMIN, Fingerprint: proofOfBob, Revoked: true},
		"carol": {Role: api.UserRole_USER_ROLE_ADMIN, Fingerprint: "of a newer certificate"},
	}}
	p.Recheck(users)
	for _, gone := range []*tls.Conn{bob, carol} {
		if _, err := gone.Read(make([]byte, 1)); err == nil {
			t.Error("a connection goes on that had to end")
		}
	}
	if len(p.open.Peers()) != 1 {
		t.Errorf("%d connections are known", len(p.open.Peers()))
	}
	if err := alice.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := alice.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("alice: %v", err)
	}
}
