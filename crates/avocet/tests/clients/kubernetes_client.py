"""A session with the hub through the Kubernetes client for Python. Arguments: kubeconfig, and after the hub was
restarted the version that the session printed at its end."""

import sys
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import ConflictError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

NAMESPACE = "default"


def placement(name, labels=None, **spec):
    return {
        "apiVersion": "avocet.dev/v1alpha1",
        "kind": "Placement",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"tiers": ["edge"], **spec},
    }


def refusal(code, call, **arguments):
    """The refusal that a call must meet."""
    try:
        call(**arguments)
    except ApiException as error:
        assert error.status == code, f"{error.status} instead of {code}: {error}"
        return str(error.body)
    raise AssertionError(f"{call} was not refused")


def find_placements(api):
    return api.resources.get(api_version="avocet.dev/v1alpha1", kind="Placement")


def dynamic_objects(api):
    placements = find_placements(api)
    assert placements.namespaced and "scale" in placements.subresources
    for number in range(5):
        labels = {"parity": "odd" if number % 2 else "even"}
        placements.create(placement(f"p{number}", labels), namespace=NAMESPACE)
    try:
        placements.create(placement("p0"), namespace=NAMESPACE)
        raise AssertionError("a name was given twice")
    except ConflictError as error:
        assert "AlreadyExists" in str(error.body), error.body

    odd = placements.get(namespace=NAMESPACE, label_selector="parity=odd")
    assert [one.metadata.name for one in odd.items] == ["p1", "p3"], odd
    one = placements.get(namespace=NAMESPACE, field_selector="metadata.name=p4")
    assert [one.metadata.name for one in one.items] == ["p4"], one
    names, more = [], None
    while more != "":
        page = placements.get(namespace=NAMESPACE, limit=2, _continue=more or "")
        assert len(page["items"]) <= 2
        names += [one.metadata.name for one in page["items"]]
        more = getattr(page.metadata, "continue", None) or ""
    assert names == [f"p{number}" for number in range(5)], names

    merge = {"spec": {"numberOfSites": 2}}
    kind = "application/merge-patch+json"
    changed = placements.patch(name="p0", namespace=NAMESPACE, body=merge, content_type=kind)
    assert changed.spec.numberOfSites == 2
    operations = [{"op": "replace", "path": "/spec/numberOfSites", "value": 3}]
    kind = "application/json-patch+json"
    changed = placements.patch(name="p0", namespace=NAMESPACE, body=operations, content_type=kind)
    assert changed.spec.numberOfSites == 3
    strategic = "application/strategic-merge-patch+json"
    refusal(415, placements.patch, name="p0", namespace=NAMESPACE, body=merge, content_type=strategic)

    read = replace(placements, "p0", {"tiers": ["cloud"]})
    refusal(409, placements.replace, body=read, namespace=NAMESPACE)


def replace(placements, name, spec):
    """Answers what was replaced. Controllers may be faster: then what they made is read and replaced."""
    while True:
        read = placements.get(name=name, namespace=NAMESPACE).to_dict()
        try:
            placements.replace({**read, "spec": spec}, namespace=NAMESPACE)
            return read
        except ConflictError:
            continue


def server_side_apply(api):
    placements = find_placements(api)

    def apply(manager, force=False, **spec):
        body = placement("applied", **spec)
        return placements.server_side_apply(
            body, namespace=NAMESPACE, field_manager=manager, force_conflicts=force
        )

    apply("one", numberOfSites=1)
    try:
        apply("two", numberOfSites=2)
        raise AssertionError("no conflict")
    except ConflictError as error:
        assert 'conflict with \\"one\\"' in str(error.body), error.body
    assert apply("two", force=True, numberOfSites=2).spec.numberOfSites == 2
    entries = placements.get(name="applied", namespace=NAMESPACE).metadata.managedFields
    # The hub may have told a status already.
    managers = [entry.manager for entry in entries if entry.subresource != "status"]
    assert sorted(managers) == ["one", "two"], managers


def deletion(api):
    placements = find_placements(api)
    placements.create(placement("gone"), namespace=NAMESPACE)
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    other = {**options, "preconditions": {"uid": "of-another"}}
    refusal(409, placements.delete, name="gone", namespace=NAMESPACE, body=other)
    placements.delete(name="gone", namespace=NAMESPACE, body=options)
    refusal(404, placements.get, name="gone", namespace=NAMESPACE)
    placements.delete(namespace=NAMESPACE, label_selector="parity=odd")
    left = [one.metadata.name for one in placements.get(namespace=NAMESPACE).items]
    assert left == ["applied", "p0", "p2", "p4"], left


def typed_objects():
    core = client.CoreV1Api()
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name="typed")))
    assert "typed" in [one.metadata.name for one in core.list_namespace().items]
    settings = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="settings"), data={"level": "high"})
    core.create_namespaced_config_map("typed", settings)
    core.patch_namespaced_config_map("settings", "typed", {"data": {"more": "yes"}})
    found = core.read_namespaced_config_map("settings", "typed")
    assert found.data == {"level": "high", "more": "yes"}, found.data
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="keys"), string_data={"password": "hunter2"})
    core.create_namespaced_secret("typed", secret)
    assert core.read_namespaced_secret("keys", "typed").type == "Opaque"
    event = client.CoreV1Event(
        metadata=client.V1ObjectMeta(generate_name="told-"),
        involved_object=client.V1ObjectReference(kind="ConfigMap", name="settings", namespace="typed"),
        reason="Told", message="it was told", type="Normal",
    )
    core.create_namespaced_event("typed", event)
    events = core.list_namespaced_event("typed", field_selector="involvedObject.name=settings")
    assert [event.reason for event in events.items] == ["Told"], events
    refusal(404, core.read_namespaced_secret, name="nothing", namespace="typed")


def watches():
    core = client.CoreV1Api()

    def change(name, level):
        core.patch_namespaced_config_map(name, NAMESPACE, {"data": {"level": level}})

    def listen(version, count):
        watcher, seen = watch.Watch(), []
        listed = core.list_namespaced_config_map
        for event in watcher.stream(listed, NAMESPACE, resource_version=version, label_selector="watched", timeout_seconds=60):
            seen.append((event["type"], event["object"].metadata.name, (event["object"].data or {}).get("level")))
            if len(seen) == count:
                watcher.stop()
        return seen, watcher.resource_version

    for name in ("w1", "w2"):
        metadata = client.V1ObjectMeta(name=name, labels={"watched": ""})
        core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=metadata, data={"level": "0"}))
    version = core.list_namespaced_config_map(NAMESPACE, label_selector="watched").metadata.resource_version
    change("w1", "1")
    change("w2", "1")
    seen, version = listen(version, 2)
    assert seen == [("MODIFIED", "w1", "1"), ("MODIFIED", "w2", "1")], seen
    change("w1", "2")
    core.delete_namespaced_config_map("w2", NAMESPACE)
    seen, version = listen(version, 2)
    assert seen == [("MODIFIED", "w1", "2"), ("DELETED", "w2", "1")], seen
    # Without a version a watch begins with what there is.
    seen, _ = listen(None, 1)
    assert seen == [("ADDED", "w1", "2")], seen
    return version


def resume(version):
    """What was seen before the hub was restarted is too old to go on from: list anew, and watch from there."""
    core = client.CoreV1Api()
    core.patch_namespaced_config_map("w1", NAMESPACE, {"data": {"level": "3"}})
    listed, seen, is_expired = core.list_namespaced_config_map, [], False
    while not seen:
        try:
            watcher = watch.Watch()
            arguments = {"label_selector": "watched", "timeout_seconds": 60, "resource_version": version}
            for event in watcher.stream(listed, NAMESPACE, **arguments):
                seen.append(event["object"].data["level"])
                watcher.stop()
        except ApiException as error:
            assert error.status == 410 and not is_expired, error
            is_expired = True
            found = listed(NAMESPACE, label_selector="watched")
            assert [one.data["level"] for one in found.items] == ["3"], found
            version = found.metadata.resource_version
            core.patch_namespaced_config_map("w1", NAMESPACE, {"data": {"level": "4"}})
    assert is_expired and seen == ["4"], (is_expired, seen)


class Candidate:
    """Leads in a thread until it is stopped: then its lock is never renewed again."""

    def __init__(self, lock, leads):
        self.lock, self.leads, self.is_stopped = lock, leads, False
        self.update = lock.update
        lock.update = self.renew
        timing = {"lease_duration": 3, "renew_deadline": 2, "retry_period": 1}
        settings = electionconfig.Config(lock, **timing, onstarted_leading=self.lead, onstopped_leading=self.stop)
        self.thread = threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True)

    def lead(self):
        self.leads.append(self.lock.identity)

    def stop(self):
        self.leads.append(f"{self.lock.identity} stopped")

    def renew(self, *arguments):
        return False if self.is_stopped else self.update(*arguments)


def leader_election(make_lock):
    leads = []
    first, second = (Candidate(make_lock(name), leads) for name in ("first", "second"))
    first.thread.start()
    wait_for(leads, ["first"])
    second.thread.start()
    time.sleep(4)
    assert leads == ["first"], leads
    first.is_stopped = True
    wait_for(leads, ["first", "second"])


def wait_for(leads, expected):
    end = time.monotonic() + 60
    while [lead for lead in leads if "stopped" not in lead] != expected:
        assert time.monotonic() < end, f"{leads} instead of {expected}"
        time.sleep(0.1)


def main():
    config.load_kube_config(sys.argv[1])
    if len(sys.argv) > 2:
        resume(sys.argv[2])
        return
    api = dynamic.DynamicClient(client.ApiClient())
    dynamic_objects(api)
    server_side_apply(api)
    deletion(api)
    typed_objects()
    version = watches()
    leader_election(lambda name: LeaseLock("lease", NAMESPACE, name))
    leader_election(lambda name: ConfigMapLock("lock", NAMESPACE, name))
    print(version)


if __name__ == "__main__":
    main()
