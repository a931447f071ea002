"""XMP as other programs write it: the shapes of digiKam, Lightroom, Picasa and Windows, with invented people and places."""

from __future__ import annotations

_SPACES = """
    xmlns:digiKam="http://www.digikam.org/ns/1.0/"
    xmlns:MP="http://ns.microsoft.com/photo/1.2/"
    xmlns:MPRI="http://ns.microsoft.com/photo/1.2/t/RegionInfo#"
    xmlns:MPReg="http://ns.microsoft.com/photo/1.2/t/Region#"
    xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
    xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"
    xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
"""


def packet(body: str, about: str = "", attributes: str = "") -> bytes:
    """Return a packet with one description."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        f'  <rdf:Description rdf:about="{about}"{_SPACES}{attributes}>\n{body}\n  </rdf:Description>\n'
        " </rdf:RDF>\n</x:xmpmeta>\n"
        '<?xpacket end="w"?>'
    ).encode()


def digikam(name: str = "Anna", x: float = 0.3, y: float = 0.4, width: float = 0.2, height: float = 0.2) -> bytes:
    """Both forms, attributes in a nested description, a keyword, odd blanks and a comment: none of which is facepipe's to change."""
    return packet(f"""\
   <digiKam:TagsList>
    <rdf:Seq>
     <rdf:li>People/{name}</rdf:li>\t
    </rdf:Seq>
   </digiKam:TagsList>
   <!-- kept -->
   <MP:RegionInfo rdf:parseType="Resource">
    <MPRI:Regions>
     <rdf:Bag>
      <rdf:li
       MPReg:PersonDisplayName='{name}'
       MPReg:Rectangle="{x - width / 2:.6g}, {y - height / 2:.6g}, {width}, {height}"/>
     </rdf:Bag>
    </MPRI:Regions>
   </MP:RegionInfo>
   <mwg-rs:Regions rdf:parseType="Resource">
    <mwg-rs:RegionList>
     <rdf:Bag>
      <rdf:li>
       <rdf:Description
        mwg-rs:Name="{name}"
        mwg-rs:Type="Face">
        <mwg-rs:Area stArea:x="{x}" stArea:y="{y}" stArea:w="{width}" stArea:h="{height}" stArea:unit="normalized"/>
       </rdf:Description>
      </rdf:li>
     </rdf:Bag>
    </mwg-rs:RegionList>
   </mwg-rs:Regions>""")


def lightroom(name: str = "Anna", x: float = 0.3, y: float = 0.4, width: float = 0.2, height: float = 0.2) -> bytes:
    """Regions with a rotation and an extension, a face that nobody is named in, a focus point, and a document's id."""
    return packet(
        f"""\
   <mwg-rs:Regions rdf:parseType="Resource">
    <mwg-rs:AppliedToDimensions stDim:w="400" stDim:h="300" stDim:unit="pixel"/>
    <mwg-rs:RegionList>
     <rdf:Bag>
      <rdf:li>
       <rdf:Description mwg-rs:Rotation="0.00000" mwg-rs:Name="{name}" mwg-rs:Type="Face">
        <mwg-rs:Area stArea:h="{height}" stArea:w="{width}" stArea:x="{x}" stArea:y="{y}"/>
        <mwg-rs:Extensions rdf:parseType="Resource"><lr:Pick>1</lr:Pick></mwg-rs:Extensions>
       </rdf:Description>
      </rdf:li>
      <rdf:li rdf:parseType="Resource">
       <mwg-rs:Area stArea:x="0.8" stArea:y="0.8" stArea:w="0.1" stArea:h="0.1"/><mwg-rs:Type>Face</mwg-rs:Type>
      </rdf:li>
      <rdf:li rdf:parseType="Resource">
       <mwg-rs:Area stArea:x="0.5" stArea:y="0.5" stArea:w="0.01" stArea:h="0.01"/><mwg-rs:Type>Focus</mwg-rs:Type>
      </rdf:li>
     </rdf:Bag>
    </mwg-rs:RegionList>
   </mwg-rs:Regions>
   <dc:subject><rdf:Bag><rdf:li>Lake &amp; hills</rdf:li></rdf:Bag></dc:subject>""",
        about="uuid:faf5bdd5-ba3d-11da-ad31-d33d75182f1b",
        attributes='    lr:Rating="5"',
    )


def picasa(name: str = "Anna", x: float = 0.3, y: float = 0.4, width: float = 0.2, height: float = 0.2) -> bytes:
    """Every field an element."""
    area = "".join(
        f"<stArea:{axis}>{value}</stArea:{axis}>" for axis, value in zip("xywh", (x, y, width, height), strict=True)
    )
    return packet(f"""\
   <mwg-rs:Regions rdf:parseType="Resource">
    <mwg-rs:AppliedToDimensions rdf:parseType="Resource">
     <stDim:w>400</stDim:w><stDim:h>300</stDim:h><stDim:unit>pixel</stDim:unit>
    </mwg-rs:AppliedToDimensions>
    <mwg-rs:RegionList>
     <rdf:Bag>
      <rdf:li rdf:parseType="Resource">
       <mwg-rs:Type>Face</mwg-rs:Type><mwg-rs:Name>{name}</mwg-rs:Name>
       <mwg-rs:Area rdf:parseType="Resource">{area}<stArea:unit>normalized</stArea:unit></mwg-rs:Area>
      </rdf:li>
     </rdf:Bag>
    </mwg-rs:RegionList>
   </mwg-rs:Regions>""")


def windows(name: str = "Anna", x: float = 0.3, y: float = 0.4, width: float = 0.2, height: float = 0.2) -> bytes:
    """Microsoft's form alone, nested descriptions."""
    return packet(f"""\
   <MP:RegionInfo>
    <rdf:Description>
     <MPRI:Regions>
      <rdf:Bag>
       <rdf:li>
        <rdf:Description>
         <MPReg:Rectangle>{x - width / 2:.6g}, {y - height / 2:.6g}, {width}, {height}</MPReg:Rectangle>
         <MPReg:PersonDisplayName>{name}</MPReg:PersonDisplayName>
        </rdf:Description>
       </rdf:li>
      </rdf:Bag>
     </MPRI:Regions>
    </rdf:Description>
   </MP:RegionInfo>""")


PROGRAMS = {"digikam": digikam, "lightroom": lightroom, "picasa": picasa, "windows": windows}
