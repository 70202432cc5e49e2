"""Drives a hub as people do with Helm, by Helm's own code: releases, and charts in the registry.

    helm_session.py KUBECONFIG REGISTRY CA_FILE TOKEN FOLDER
"""

import json
import pathlib
import sys

import helm_python as helm

TEMPLATE = """
apiVersion: avocet.dev/v1alpha1
kind: Placement
metadata:
  name: {{ .Release.Name }}-sites
  labels: {app.kubernetes.io/managed-by: {{ .Release.Service }}}
spec:
  numberOfSites: {{ .Values.sites }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-settings
data:
  color: {{ .Values.color | quote }}
  knows: {{ .Capabilities.APIVersions.Has "avocet.dev/v1alpha1/Placement" | quote }}
  namespace: {{ (lookup "v1" "Namespace" "" "default").metadata.name | quote }}
{{- if .Values.secret }}
---
apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}-secret}
stringData: {key: {{ .Values.secret | quote }}}
{{- end }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-hook
  annotations: {"helm.sh/hook": pre-upgrade, "helm.sh/hook-delete-policy": hook-succeeded}
data: {ran: "yes"}
"""


def write_chart(folder):
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: shop\nversion: 0.1.0\nkubeVersion: '>=1.20.0-0'\n")
    (folder / "values.yaml").write_text("sites: 1\ncolor: red\nsecret: ''\n")
    (folder / "templates/all.yaml").write_text(TEMPLATE)


def refused(text, action):
    try:
        action()
    except helm.HelmError as error:
        assert text in str(error), error
        return
    raise AssertionError(f"not refused: {text}")


def statuses(config):
    return [(release["revision"], release["status"]) for release in config.history("demo")]


def releases(kubeconfig, chart):
    with helm.Config(kubeconfig_path=kubeconfig, namespace="default") as config:
        dry = config.install(chart, "demo", dry_run="server")["manifest"]
        assert 'knows: "true"' in dry and 'namespace: "default"' in dry, dry
        assert config.list() == []

        first = config.install(chart, "demo", wait="watcher", timeout=60)
        assert first["status"] == "deployed", first
        refused("cannot reuse a name", lambda: config.install(chart, "demo"))

        values = {"color": "blue", "secret": "s3cret", "sites": 2}
        assert config.upgrade(chart, "demo", values, wait="watcher", timeout=60)["revision"] == 2
        assert config.get_values("demo") == values
        refused("greater than or equal to 1", lambda: config.upgrade(chart, "demo", {"sites": -4}))
        assert statuses(config) == [(1, "superseded"), (2, "deployed"), (3, "failed")], statuses(config)

        config.rollback("demo", version=1)
        assert statuses(config)[-1] == (4, "deployed"), statuses(config)
        assert 'color: "red"' in config.status("demo")["manifest"]
        refused("not found", lambda: config.status("other"))
        config.uninstall("demo", wait="watcher", timeout=60)
        assert config.list() == []


def charts(registry, token, chart, folder):
    package = helm.package(chart, destination=folder)
    with helm.RegistryClient(credentials_file=folder / "credentials.json") as client:
        refused("401", lambda: client.login(registry, "anybody", "wrong"))
        client.login(registry, "avocet", token)
        client.push(package, f"oci://{registry}/charts")
        assert client.tags(f"{registry}/charts/shop") == ["0.1.0"]
        pulled = folder / "pulled"
        pulled.mkdir()
        client.pull(f"oci://{registry}/charts/shop", version="0.1.0", destination=pulled)
        assert (pulled / "shop-0.1.0.tgz").read_bytes() == pathlib.Path(package).read_bytes()
        assert "name: shop" in client.show(f"oci://{registry}/charts/shop:0.1.0")


kubeconfig, registry, token, folder = sys.argv[1:]
folder = pathlib.Path(folder)
write_chart(folder / "shop")
releases(kubeconfig, folder / "shop")
charts(registry, token, folder / "shop", folder)
print(json.dumps({"helm": helm.helm_sdk_version()}))
