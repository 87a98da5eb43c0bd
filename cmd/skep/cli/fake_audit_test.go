package cli_test

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/internal/fault"
)

// fakeCluster is the cluster of the fake's audit log.
const fakeCluster = "cluster1"

// The ends of a followed log: the manager goes away, and in the end somebody else does.
var (
	errMovedOn  = fault.New(fault.Unavailable, "the manager stops")
	errFollowed = fault.New(fault.Precondition, "that was all")
)

// note adds an entry to the fake's audit log.
func (f *fake) note(method, caller, object, result string) {
	previous := chain.Genesis(fakeCluster)
	if n := len(f.audit); n > 0 {
		previous = f.audit[n-1].GetHash()
	}
	sequence := uint64(len(f.audit) + 1)
	e := &api.AuditEntry{
		Sequence: sequence, Time: timestamppb.New(born().Add(time.Duration(sequence) * time.Minute)),
		Event: &api.AuditEvent{
			Method: method, CallerKind: "admin", Caller: caller, Address: "@", Manager: "m1", ObjectKind: "secret", ObjectName: object,
			Result: result, Summary: "created",
		},
	}
	e.Hash = chain.Next(previous, sequence, e.GetTime().AsTime().UnixNano(), chain.Encode(e.GetEvent()))
	f.audit = append(f.audit, e)
}

// ReadAudit sends what was noted. The first entry that it has is after those that were dropped.
func (f *fake) ReadAudit(r *api.ReadAuditRequest, stream grpc.ServerStreamingServer[api.ReadAuditResponse]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	place := func(n int) *api.AuditHead {
		if n == 0 {
			return &api.AuditHead{Hash: chain.Genesis(fakeCluster)}
		}
		return &api.AuditHead{Sequence: uint64(n), Hash: f.audit[n-1].GetHash()}
	}
	from := max(f.auditDropped, int(r.GetAfter()))
	for r.GetSince() != nil && from < len(f.audit) && f.audit[from].GetTime().AsTime().Before(r.GetSince().AsTime()) {
		from++
	}
	log := &api.AuditLog{ClusterId: fakeCluster, Anchor: place(from), Head: place(len(f.audit))}
	if err := stream.Send(&api.ReadAuditResponse{Log: log}); err != nil {
		return err
	}
	entries := f.audit[from:]
	if n := int(r.GetLimit()); n > 0 && len(entries) > n {
		entries = entries[len(entries)-n:]
	}
	for _, e := range entries {
		if r.GetCaller() != "" && r.GetCaller() != e.GetEvent().GetCaller() {
			continue
		}
		if err := stream.Send(&api.ReadAuditResponse{Entries: []*api.AuditEntry{e}}); err != nil {
			return err
		}
	}
	if r.GetFollow() {
		f.note("Control.CreateSecret", "uid 0", fmt.Sprint("followed", r.GetAfter()), "ok")
		if len(f.audit) > 6 {
			f.faults["ReadAudit"] = append(f.faults["ReadAudit"], errFollowed)
		}
		return errMovedOn
	}
	return nil
}
