package house_test

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/skep-io/skep/api"
)

// gated are what the log may hold and the last release does not know, each with the protocol (store.Protocol) that all members
// have before anybody writes one. A release empties it.
func gated() map[protoreflect.FullName]uint32 {
	return map[protoreflect.FullName]uint32{
		"skep.v1.StoredObject.join_grant": 2, "skep.v1.StoredObject.user": 2, "skep.v1.StoredObject.audit_segment": 2,
		"skep.v1.StoredObject.grant": 2, "skep.v1.StoredObject.config": 2, "skep.v1.StoredObject.old_value": 2,
		"skep.v1.StoredObject.service_revision": 2,
		"skep.v1.Transaction.audit_events":      2,
	}
}

// A manager of the last release stops at an entry that it does not understand: what is new in the log waits for all managers.
func TestLog_WhatTheLastReleaseDoesNotKnowIsGated(t *testing.T) {
	known := baseline(t)
	for _, name := range logNames() {
		if !known[name] && gated()[name] == 0 {
			t.Errorf("%s is new in the log: raise store.Protocol, write none of it before all members have that, and enter it in gated; "+
				"see docs/adr/0015-mixed-versions.md", name)
		}
	}
	if !known["skep.v1.StoredObject.service"] || !known["skep.v1.CHANGE_ACTION_CREATE"] {
		t.Error("the baseline was not read: the rule holds for nothing")
	}
}

// logNames are the kinds of objects and the actions that the log may hold, and the fields that say how to apply them.
func logNames() (names []protoreflect.FullName) {
	for _, message := range []proto.Message{&api.StoredObject{}, &api.LogRecord{}, &api.Transaction{}, &api.Change{}} {
		fields := message.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			names = append(names, fields.Get(i).FullName())
		}
	}
	actions := api.ChangeAction(0).Descriptor().Values()
	for i := range actions.Len() {
		names = append(names, actions.Get(i).FullName())
	}
	return names
}

// baseline returns the names of all fields and enum values of the last release.
func baseline(t *testing.T) map[protoreflect.FullName]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "proto", "baseline.binpb"))
	if err != nil {
		t.Fatal(err)
	}
	released := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(b, released); err != nil {
		t.Fatal(err)
	}
	names := map[protoreflect.FullName]bool{}
	for _, file := range released.GetFile() {
		scope := protoreflect.FullName(file.GetPackage())
		for _, message := range file.GetMessageType() {
			for _, field := range message.GetField() {
				names[scope.Append(protoreflect.Name(message.GetName())).Append(protoreflect.Name(field.GetName()))] = true
			}
		}
		for _, enum := range file.GetEnumType() {
			for _, value := range enum.GetValue() {
				names[scope.Append(protoreflect.Name(value.GetName()))] = true
			}
		}
	}
	return names
}
